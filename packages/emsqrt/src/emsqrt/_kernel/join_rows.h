/* clang-format off */
/* Rows in partitioning and joins: their hash, and rows joined from two rows.
 *
 * A row whose key is empty has a NULL in its key: it equals no row. A sequenced row's payload
 * begins with the row's number in its input, eight bytes, big-endian.
 *
 * A joined row has the row format too. Its key is the number of its left row and that of its
 * right row, as far as these sides are sequenced, so that memcmp order is the join's order; its
 * payload is
 *
 *     u32 left_bytes, u32 right_bytes    EM_ABSENT for a side without a row
 *     the left row's payload, the right row's payload
 */
/* clang-format on */
#ifndef EMSQRT_JOIN_ROWS_H
#define EMSQRT_JOIN_ROWS_H

#include <stdbool.h>
#include <stddef.h>

#include "csv.h"
#include "keys.h"
#include "pack.h"
#include "rows.h"

#define EM_ABSENT UINT32_MAX
#define EM_NUMBER_BYTES 8u
#define EM_JOINED_HEAD_BYTES 8u
/* The top bit of a stored row's key_bytes marks a row that found a match. A spilled right row has
 * it too when it found one before its side was partitioned. */
#define EM_MATCHED 0x80000000u

typedef struct {
    const uint8_t *payload; /* NULL for a side without a row */
    uint32_t bytes;         /* EM_ABSENT for a row that is too short for its number */
    const uint8_t *number;  /* NULL where its side is not sequenced */
} em_side;

/* Which sides have sequence numbers. */
typedef struct {
    bool left, right;
} em_sequenced;

/* The buffer that receives joined rows. */
typedef struct {
    uint8_t *memory;
    size_t size, used, rows;
} em_join_output;

static inline uint32_t em_joined_key_bytes(const uint8_t *row) {
    return em_row_key_bytes(row) & ~EM_MATCHED;
}

static inline bool em_is_matched(const uint8_t *row) {
    return (em_row_key_bytes(row) & EM_MATCHED) != 0;
}

static inline em_side em_side_of(const uint8_t *row, bool sequenced) {
    const uint32_t before = EM_ROW_HEAD_BYTES + em_joined_key_bytes(row);
    const uint8_t *payload = row + before;
    const uint32_t bytes = em_row_bytes(row) - before;
    if (!sequenced) {
        return (em_side){payload, bytes, NULL};
    }
    const bool numbered = bytes >= EM_NUMBER_BYTES;
    return (em_side){payload + (numbered ? EM_NUMBER_BYTES : 0),
                     numbered ? bytes - EM_NUMBER_BYTES : EM_ABSENT, payload};
}

/* The side without a row. A right row without a left one sorts after all other rows. */
em_side em_absent_side(bool is_right, bool sequenced);

static inline uint64_t em_fold(uint64_t a, uint64_t b) {
    __extension__ typedef unsigned __int128 wide;
    const wide product = (wide)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* Hash a key by folded 64-bit products; the bits of different seeds are independent. */
static inline uint64_t em_hash_key(const uint8_t *key, uint32_t bytes, uint64_t seed) {
    uint64_t hash = seed ^ (bytes * UINT64_C(0x9E3779B97F4A7C15)), word;
    for (; bytes >= 8; key += 8, bytes -= 8) {
        memcpy(&word, key, 8);
        hash = em_fold(hash ^ word, UINT64_C(0xD6E8FEB86659FD93)) + word;
    }
    if (bytes > 0) {
        word = 0;
        memcpy(&word, key, bytes);
        hash = em_fold(hash ^ word, UINT64_C(0xA0761D6478BD642F)) + word;
    }
    return em_fold(hash ^ UINT64_C(0xE7037ED1A0B428DB), UINT64_C(0x8EBC6AF09C88C6E3));
}

/* Compare two keys in sort order: by bytes, then the shorter one first. */
static inline int em_compare_texts(const uint8_t *one, uint32_t bytes, const uint8_t *other,
                                   uint32_t other_bytes) {
    const int order = memcmp(one, other, bytes < other_bytes ? bytes : other_bytes);
    return order != 0 ? order : (bytes > other_bytes) - (bytes < other_bytes);
}

/* Return the row at `at` of a block, or NULL when no whole row starts there. */
const uint8_t *em_row_at(const uint8_t *block, size_t size, size_t at, bool sequenced);

/* As em_row_at(), for rows that may carry EM_MATCHED. */
const uint8_t *em_spilled_row_at(const uint8_t *block, size_t size, size_t at, bool sequenced);

/* Write one joined row; false when it does not fit. */
bool em_write_joined(em_join_output *out, em_side left, em_side right);

/* Write rows from `*row` on in the row format while they fit, with `cut` (or NULL) applied to their
 * lines; return the bytes written. */
size_t em_pack_join_rows(const em_columns *columns, const em_key_spec *keys,
                         const em_payload *payload, const em_cut *cut, size_t *row, uint8_t *out,
                         size_t out_bytes);

enum em_walk { EM_WALK_ON, EM_WALK_FULL, EM_WALK_DAMAGED };

/* Write the rows of a block from `*at` on as the left or the right side of joined rows whose other
 * side is absent. With `bits`, write only rows whose bit (counted from `first_bit`) is 0. */
enum em_walk em_null_extend_rows(const uint8_t *block, size_t size, size_t *at, size_t *passed,
                                 bool is_right, em_sequenced sequenced, const uint8_t *bits,
                                 size_t first_bit, em_join_output *out);

/* Write the cross product: each left row from `*left_at` on with each right row; `*right_at` is the
 * next right row of the first of these left rows. */
enum em_walk em_join_cross(const uint8_t *left, size_t left_size, size_t *left_at,
                           const uint8_t *right, size_t right_size, size_t *right_at,
                           em_sequenced sequenced, em_join_output *out);

/* Write one side of joined rows as rows without keys; `absent` is the payload where that side has
 * no row. */
enum em_walk em_join_side(const uint8_t *block, size_t size, size_t *at, bool is_right,
                          em_side absent, em_join_output *out);

/* What lines contain in addition to the rows; `left_absent` and `right_absent` replace a side
 * without a row. */
typedef struct {
    em_side separator, left_absent, right_absent;
    bool left_only; /* write `right_absent` for every right side */
} em_line_parts;

/* Write joined rows as lines: left, separator, right, line feed. */
enum em_walk em_join_lines(const uint8_t *block, size_t size, size_t *at,
                           const em_line_parts *parts, em_join_output *out);

#endif
