/* The reader of spilled segments: heads, checksums, LZ4; and that what is compressed comes back.
 *
 * Byte 0 of the input says whether checksums are mended before they are looked at: no fuzzer would
 * guess them, and what lies behind them must bear any bytes all the same.
 *
 * Needs block.c, lz4.c, xxh3.c.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "block.h"
#include "lz4.h"
#include "xxh3.h"

static const uint64_t SEGMENT = 7;
static const size_t RAW_BYTES_MAX = 1 << 20;

static uint32_t load32(const uint8_t *at) {
    uint32_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

/* Write a head over the input's own that passes every check but those of its lengths. */
static void mend(uint8_t *head, size_t bytes_after) {
    em_block block = {
        .segment = SEGMENT,
        .number = load32(head + 24),
        .codec = load32(head + 28) % EM_CODECS,
        .raw_bytes = load32(head + 40) % (uint32_t)(2 * RAW_BYTES_MAX),
        .stored_bytes = load32(head + 44) % 4096,
    };
    if (block.stored_bytes <= bytes_after) {
        block.checksum = em_xxh3(head + EM_BLOCK_HEAD_BYTES, block.stored_bytes, SEGMENT);
    }
    em_block_write_head(&block, head);
}

/* Read one block as a reader does; how many bytes it took, 0 at the end or when it is refused. */
static size_t read_block(const uint8_t *data, size_t bytes) {
    em_block block;
    if (bytes < EM_BLOCK_HEAD_BYTES || !em_block_read_head(data, SEGMENT, &block) ||
        block.stored_bytes > bytes - EM_BLOCK_HEAD_BYTES || block.raw_bytes > RAW_BYTES_MAX) {
        return 0;
    }
    /* Exact, so that a sanitizer sees a step beyond. */
    uint8_t *raw = malloc(block.raw_bytes > 0 ? block.raw_bytes : 1);
    em_block_open(&block, data + EM_BLOCK_HEAD_BYTES, raw);
    free(raw);
    return EM_BLOCK_HEAD_BYTES + block.stored_bytes;
}

static void compress_and_back(const uint8_t *data, size_t bytes, size_t spare) {
    const size_t room = em_lz4_bound(bytes) - spare;
    uint8_t *packed = malloc(room), *back = malloc(bytes + 1);
    const size_t made = em_lz4_compress(data, bytes, packed, room);
    if (made > room || (made == 0 && spare == 0)) {
        abort();
    }
    if (made > 0 && (em_lz4_decompress(packed, made, back, bytes) != (ptrdiff_t)bytes ||
                     memcmp(back, data, bytes) != 0)) {
        abort();
    }
    free(packed);
    free(back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    if (bytes < 2) {
        return 0;
    }
    const uint8_t mode = data[0];
    const size_t count = bytes - 1;
    uint8_t *copy = malloc(count);
    memcpy(copy, data + 1, count);
    compress_and_back(copy, count, mode >> 1 & 15);
    for (size_t at = 0, took = 1; took > 0 && count - at >= EM_BLOCK_HEAD_BYTES; at += took) {
        if (mode & 1) {
            mend(copy + at, count - at - EM_BLOCK_HEAD_BYTES);
        }
        took = read_block(copy + at, count - at);
    }
    free(copy);
    return 0;
}
