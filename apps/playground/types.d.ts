// What next-env.d.ts would bring; that file is written anew on every start and is not kept.
/// <reference types="next" />
/// <reference types="next/image-types/global" />
