/* XXH3, 64 bits: the checksum of spilled blocks and the hash of keys (the
 * xxHash specification). */
#ifndef EMSQRT_XXH3_H
#define EMSQRT_XXH3_H

#include <stddef.h>
#include <stdint.h>

/* Hash `bytes` bytes at `data` with the default secret; any length, any
 * alignment. */
uint64_t em_xxh3(const void *data, size_t bytes, uint64_t seed);

#endif
