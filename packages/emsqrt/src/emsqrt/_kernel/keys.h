/* clang-format off */
/* Normalised keys: bytes whose memcmp order is the requested order of the rows, and their decoding.
 *
 * A key is its columns one after another. Each column is
 *
 *     u8      1 for a value; for null 0 when nulls come first, 2 when they come last
 *     value   integers        big-endian, signed ones with the sign bit flipped
 *             decimals        16 bytes, big-endian, with the sign bit flipped
 *             floats          big-endian; negative ones complemented, others with the sign bit set;
 *                             NaN is greatest, -0.0 is +0.0
 *             booleans        one byte
 *             text and bytes  byte 00 written as 00 FF, then the end 00 00
 *             null            zeros of the fixed width; nothing for text and bytes
 *
 * and after the last column, on request, a u64 big-endian sequence number. A descending column
 * complements the bytes of the value, never the first byte. Keys of fixed-width columns all have
 * the same length; no key is a prefix of another. The escape is that of FoundationDB's tuple layer.
 */
/* clang-format on */
#ifndef EMSQRT_KEYS_H
#define EMSQRT_KEYS_H

#include "columns.h"
#include "fill.h"

#define EM_SEQUENCE_BYTES 8u

enum { EM_NULL_FIRST = 0, EM_VALUE = 1, EM_NULL_LAST = 2 };

typedef struct {
    uint32_t column; /* index in the batch; unused when decoding */
    bool descending, nulls_first;
} em_key_part;

typedef struct {
    size_t count;
    const em_key_part *parts;
} em_key_spec;

/* The least number of columns that a batch must have for the key's columns to be among them. */
static inline size_t em_key_columns(const em_key_spec *spec) {
    size_t columns = 0;
    for (size_t i = 0; i < spec->count; i++) {
        const size_t needed = (size_t)spec->parts[i].column + 1;
        columns = needed > columns ? needed : columns;
    }
    return columns;
}

/* Bytes of every key of these columns, or 0 when a column of text makes the length vary. */
size_t em_key_fixed_bytes(const em_key_spec *spec, const em_columns *columns);

/* Bytes of one row's key. */
size_t em_key_bytes(const em_key_spec *spec, const em_columns *columns, size_t row);

/* Write one row's key of em_key_bytes() bytes, and return its end. */
uint8_t *em_key_encode(const em_key_spec *spec, const em_columns *columns, size_t row,
                       uint8_t *out);

/* Write the keys of `count` rows one after another; each has `bytes` bytes, the result of
 * em_key_fixed_bytes(). */
void em_key_encode_rows(const em_key_spec *spec, const em_columns *columns, size_t start,
                        size_t count, size_t bytes, uint8_t *out);

/* Append a sequence number, and return the end of the key. */
uint8_t *em_key_put_sequence(uint8_t *out, uint64_t sequence);

/* Return the end of one column's part of a key, or NULL when it runs past `end` or is malformed.
 * `text_bytes` receives the length of its text without escapes, 0 for other kinds and null. */
const uint8_t *em_key_skip(const em_key_part *part, enum em_kind kind, const uint8_t *at,
                           const uint8_t *end, size_t *text_bytes);

/* Append one column's part of a key, which em_key_skip() accepted, to an array as row `row`. */
const uint8_t *em_key_decode(const em_key_part *part, const uint8_t *at, em_array *array,
                             size_t row);

/* Append the same column's parts of `count` keys to an array, as rows from `first` on, a multiple
 * of 8. Each part starts at `at[r]`, which is moved to its end. */
void em_key_decode_rows(const em_key_part *part, const uint8_t **at, em_array *array, size_t first,
                        size_t count);

#endif
