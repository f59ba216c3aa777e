/* Compress and decompress LZ4 blocks (the LZ4 block format description): no frame, no checksum, no
 * dictionary. */
#ifndef EMSQRT_LZ4_H
#define EMSQRT_LZ4_H

#include <stddef.h>
#include <stdint.h>

/* The format's own limit for one block. */
#define EM_LZ4_BYTES_MAX ((size_t)0x7E000000)

/* The most bytes that compressing `bytes` can produce. */
static inline size_t em_lz4_bound(size_t bytes) {
    return bytes + bytes / 255 + 16;
}

/* Compress into at most `room` bytes; return the bytes written, 0 when they do not fit. Source and
 * target must not overlap. The hash table of 16 KiB is on the stack. */
size_t em_lz4_compress(const uint8_t *source, size_t bytes, uint8_t *target, size_t room);

/* Decompress into at most `room` bytes; return the bytes written, or -1 when the source is not a
 * whole block or its content does not fit. Never reads outside the source or writes outside the
 * target, even for damaged input. */
ptrdiff_t em_lz4_decompress(const uint8_t *source, size_t bytes, uint8_t *target, size_t room);

#endif
