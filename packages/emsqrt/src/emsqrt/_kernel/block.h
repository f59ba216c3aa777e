/* clang-format off */
/* A block of a spilled segment: a head of 64 bytes, then the stored bytes. Little-endian.
 *
 * The segment's number is random and seeds both checksums, so that a block of another file is
 * rejected.
 *
 *     offset  type  field
 *          0  u64   magic         "EMQSBLK", then the format's version in the last byte
 *          8  u64   schema        the writer's number for the layout of the rows
 *         16  u64   segment       random number of the segment
 *         24  u32   number        index of the block in its segment, from 0
 *         28  u32   codec         enum em_codec
 *         32  u64   rows
 *         40  u32   raw_bytes
 *         44  u32   stored_bytes
 *         48  u64   checksum      XXH3 of the stored bytes, seeded with `segment`
 *         56  u64   head_hash     XXH3 of the 56 bytes before, seeded with `segment`
 */
/* clang-format on */
#ifndef EMSQRT_BLOCK_H
#define EMSQRT_BLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { EM_BLOCK_HEAD_BYTES = 64 };
#define EM_BLOCK_BYTES_MAX ((size_t)0x7E000000) /* EM_LZ4_BYTES_MAX of lz4.h */

enum em_codec { EM_RAW, EM_LZ4, EM_ZSTD, EM_CODECS };

typedef struct {
    uint64_t schema, segment, rows, checksum;
    uint32_t number, codec, raw_bytes, stored_bytes;
} em_block;

/* Write the head's 64 bytes, magic and hash included. */
void em_block_write_head(const em_block *block, uint8_t *head);

/* Read the head of a block of `segment`; false when it is damaged, or of another segment or
 * version. */
bool em_block_read_head(const uint8_t *head, uint64_t segment, em_block *block);

/* Whether the stored bytes match the head's checksum. */
bool em_block_is_sound(const em_block *block, const uint8_t *stored);

/* Verify the stored bytes and decompress them into `target`, which has room for `raw_bytes`; false
 * when they are damaged or the codec is not one of the kernel's (Python decompresses ZSTD). */
bool em_block_open(const em_block *block, const uint8_t *stored, uint8_t *target);

#endif
