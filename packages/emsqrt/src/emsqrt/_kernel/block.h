/* A block of a spilled segment: a head of 64 bytes, then the stored bytes. Little-endian.
 *
 *      0  u64 magic, whose last byte is the version
 *      8  u64 schema     what the rows are, as the writer calls it
 *     16  u64 segment    random, and the seed of both checksums: a block of another file is no
 * match 24  u32 number     of the block in its segment, from 0 28  u32 codec 32  u64 rows 40  u32
 * raw_bytes 44  u32 stored_bytes 48  u64 XXH3 of the stored bytes 56  u64 XXH3 of the 56 bytes
 * before
 */
#ifndef EMSQRT_BLOCK_H
#define EMSQRT_BLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { EM_BLOCK_HEAD_BYTES = 64 };
#define EM_BLOCK_BYTES_MAX ((size_t)0x7E000000)

enum em_codec { EM_RAW, EM_LZ4, EM_ZSTD, EM_CODECS };

typedef struct {
    uint64_t schema, segment, rows, checksum;
    uint32_t number, codec, raw_bytes, stored_bytes;
} em_block;

void em_block_write_head(const em_block *block, uint8_t *head);

/* Read a head of the expected segment; false when it is damaged, foreign or of another version. */
bool em_block_read_head(const uint8_t *head, uint64_t segment, em_block *block);

/* Whether the stored bytes are those that were written. */
bool em_block_is_sound(const em_block *block, const uint8_t *stored);

/* Check the stored bytes and make the raw ones in `target`, which has room for `raw_bytes`; false
 * when they are damaged or the codec is none of the kernel's. */
bool em_block_open(const em_block *block, const uint8_t *stored, uint8_t *target);

#endif
