#include "block.h"

#include <string.h>

#include "lz4.h"
#include "xxh3.h"

static const uint64_t MAGIC = 0x014B4C4253514D45u; /* "EMQSBLK", version 1 */

enum { HEAD_HASHED = EM_BLOCK_HEAD_BYTES - 8 };

_Static_assert(EM_BLOCK_BYTES_MAX == EM_LZ4_BYTES_MAX, "LZ4 can compress every block");

static void store32(uint8_t *at, uint32_t word) {
    memcpy(at, &word, sizeof word);
}

static void store64(uint8_t *at, uint64_t word) {
    memcpy(at, &word, sizeof word);
}

static uint32_t load32(const uint8_t *at) {
    uint32_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

static uint64_t load64(const uint8_t *at) {
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

void em_block_write_head(const em_block *block, uint8_t *head) {
    store64(head, MAGIC);
    store64(head + 8, block->schema);
    store64(head + 16, block->segment);
    store32(head + 24, block->number);
    store32(head + 28, block->codec);
    store64(head + 32, block->rows);
    store32(head + 40, block->raw_bytes);
    store32(head + 44, block->stored_bytes);
    store64(head + 48, block->checksum);
    store64(head + HEAD_HASHED, em_xxh3(head, HEAD_HASHED, block->segment));
}

bool em_block_read_head(const uint8_t *head, uint64_t segment, em_block *block) {
    if (load64(head) != MAGIC || load64(head + 16) != segment ||
        load64(head + HEAD_HASHED) != em_xxh3(head, HEAD_HASHED, segment)) {
        return false;
    }
    *block = (em_block){
        .schema = load64(head + 8),
        .segment = segment,
        .number = load32(head + 24),
        .codec = load32(head + 28),
        .rows = load64(head + 32),
        .raw_bytes = load32(head + 40),
        .stored_bytes = load32(head + 44),
        .checksum = load64(head + 48),
    };
    /* A checksum does not protect from crafted heads, so the lengths are checked against the
     * format's limits too. */
    return block->codec < EM_CODECS && block->raw_bytes <= EM_BLOCK_BYTES_MAX &&
           block->stored_bytes <= EM_BLOCK_BYTES_MAX &&
           (block->codec != EM_RAW || block->stored_bytes == block->raw_bytes);
}

bool em_block_is_sound(const em_block *block, const uint8_t *stored) {
    return em_xxh3(stored, block->stored_bytes, block->segment) == block->checksum;
}

bool em_block_open(const em_block *block, const uint8_t *stored, uint8_t *target) {
    if (!em_block_is_sound(block, stored)) {
        return false;
    }
    if (block->codec == EM_LZ4) {
        return em_lz4_decompress(stored, block->stored_bytes, target, block->raw_bytes) ==
               (ptrdiff_t)block->raw_bytes;
    }
    if (block->codec == EM_RAW && block->raw_bytes > 0) {
        memcpy(target, stored, block->raw_bytes);
    }
    return block->codec == EM_RAW;
}
