/* clang-format off */
/* The payload that follows a row's key: nothing, the record's raw bytes, or packed columns.
 *
 * Packed columns are
 *
 *     u8[(k + 7) / 8]   one bit per column, set when its value is null
 *     k fields          fixed width: the value, little-endian; a boolean is one byte, a narrow
 *                           number has em_narrow.bytes bytes, a null is zeros
 *                       text and bytes: u32 length
 *     bytes             the text of each column, in order
 *
 * so the kinds alone determine the offset of each field, and the texts are the rest of the row.
 */
/* clang-format on */
#ifndef EMSQRT_PACK_H
#define EMSQRT_PACK_H

#include "columns.h"
#include "fill.h"

enum em_payload_shape { EM_PAYLOAD_NONE, EM_PAYLOAD_LINE, EM_PAYLOAD_COLUMNS };

typedef struct {
    enum em_payload_shape shape;
    size_t count; /* number of packed columns */
    const uint32_t *columns;
} em_payload;

/* Bytes of a column's field in a packed row. */
static inline size_t em_field_bytes(enum em_kind kind, em_narrow narrow) {
    if (narrow.bytes != 0) {
        return narrow.bytes;
    }
    return kind == EM_BOOL ? 1 : em_is_text(kind) ? sizeof(uint32_t) : em_width(kind);
}

/* Widen the number of a narrow field to a value of `width` bytes. */
static inline void em_widen(em_narrow narrow, uint8_t *to, size_t width, const uint8_t *field) {
    uint64_t word = 0;
    em_copy_word(&word, field, narrow.bytes);
    const int64_t value = (int64_t)(word + (uint64_t)narrow.least);
    const int64_t words[2] = {value, value >> 63};
    em_copy_value(to, words, width);
}

/* Write the narrow fields of these rows, null or not, to `words`. */
void em_narrow_words(const em_column *column, size_t start, size_t count, uint64_t *words);

/* Bytes of one row's payload. */
size_t em_payload_bytes(const em_payload *payload, const em_columns *columns, size_t row);

/* Write one row's payload of em_payload_bytes() bytes, and return its end. */
uint8_t *em_payload_write(const em_payload *payload, const em_columns *columns, size_t row,
                          uint8_t *out);

/* The offsets of text lengths in packed rows; `field` and `next_text` of the arrays have the rest.
 */
typedef struct {
    size_t head_bytes;
    size_t first_text; /* index of the first array of text; the number of arrays when none is */
} em_packed_form;

/* Compute the layout of rows packed from arrays of these kinds. */
em_packed_form em_packed_open(em_array *arrays, size_t count);

/* Add the length of each text of one packed row to `arrays[i].text_bytes`; false when the parts do
 * not add up to the row's bytes. */
bool em_packed_measure(const em_packed_form *form, em_array *arrays, size_t count,
                       const uint8_t *packed, size_t bytes);

#endif
