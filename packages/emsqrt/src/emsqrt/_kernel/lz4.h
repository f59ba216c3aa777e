/* LZ4 blocks, both ways (the LZ4 block format description): no frame, no
 * checksum, no history. */
#ifndef EMSQRT_LZ4_H
#define EMSQRT_LZ4_H

#include <stddef.h>
#include <stdint.h>

/* The format's own limit for one block. */
#define EM_LZ4_BYTES_MAX ((size_t)0x7E000000)

/* The most that compressing can make of `bytes`. */
static inline size_t em_lz4_bound(size_t bytes) {
    return bytes + bytes / 255 + 16;
}

/* Compress into at most `room` bytes; 0 when they do not suffice. Source and
 * target are apart. The table of 16 KiB lives on the stack. */
size_t em_lz4_compress(const uint8_t *source, size_t bytes, uint8_t *target, size_t room);

/* Decompress into at most `room` bytes; the bytes made, or -1 when the source
 * is no whole block or would make more. Reads within the source and writes
 * within the target whatever they hold. */
ptrdiff_t em_lz4_decompress(const uint8_t *source, size_t bytes, uint8_t *target, size_t room);

#endif
