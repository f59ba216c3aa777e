/* clang-format off */
/* The row: a key whose bytes compare in the sort order, and a payload that only its writer reads.
 *
 *     u32 row_bytes    the whole row, these eight bytes included
 *     u32 key_bytes
 *     key              see keys.h; memcmp order is the requested order
 *     payload          a record's raw bytes, packed columns, or an aggregate's states
 *
 * Rows follow one another without padding, unaligned and little-endian, in memory as in spilled
 * blocks. A row is never split across blocks.
 */
/* clang-format on */
#ifndef EMSQRT_ROWS_H
#define EMSQRT_ROWS_H

#include <stdint.h>
#include <string.h>

#define EM_ROW_HEAD_BYTES 8u

static inline uint32_t em_load32(const uint8_t *at) {
    uint32_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

static inline void em_store32(uint8_t *at, uint32_t word) {
    memcpy(at, &word, sizeof word);
}

static inline uint32_t em_row_bytes(const uint8_t *row) {
    return em_load32(row);
}

static inline uint32_t em_row_key_bytes(const uint8_t *row) {
    return em_load32(row + 4);
}

static inline const uint8_t *em_row_key(const uint8_t *row) {
    return row + EM_ROW_HEAD_BYTES;
}

static inline const uint8_t *em_row_payload(const uint8_t *row) {
    return row + EM_ROW_HEAD_BYTES + em_row_key_bytes(row);
}

static inline uint32_t em_row_payload_bytes(const uint8_t *row) {
    return em_row_bytes(row) - EM_ROW_HEAD_BYTES - em_row_key_bytes(row);
}

/* Compare two keys in sort order: by bytes, then the shorter one first. */
static inline int em_compare_keys(const uint8_t *left, const uint8_t *right) {
    const uint32_t left_bytes = em_row_key_bytes(left), right_bytes = em_row_key_bytes(right);
    const uint32_t common = left_bytes < right_bytes ? left_bytes : right_bytes;
    const int order = memcmp(em_row_key(left), em_row_key(right), common);
    if (order != 0) {
        return order;
    }
    return left_bytes < right_bytes ? -1 : left_bytes > right_bytes;
}

#endif
