/* What a row carries behind its key: nothing, its record's raw bytes, or packed
 * columns.
 *
 * Packed columns are
 *
 *     u8[(k + 7) / 8]   one bit a column, set when its value is null
 *     k fields          fixed width: the value, little-endian (a boolean takes one byte, a narrow
 *                       decimal eight, a null is zeros); text and bytes: u32 length
 *     bytes             the text of each column, in order
 *
 * so a field lies where the kinds alone say, and a row's text is what is left.
 */
#ifndef EMSQRT_PACK_H
#define EMSQRT_PACK_H

#include "columns.h"
#include "fill.h"

enum em_payload_shape { EM_PAYLOAD_NONE, EM_PAYLOAD_LINE, EM_PAYLOAD_COLUMNS };

typedef struct {
    enum em_payload_shape shape;
    size_t count; /* of packed columns */
    const uint32_t *columns;
} em_payload;

/* Bytes of a column's field in a packed row. */
static inline size_t em_field_bytes(enum em_kind kind, bool narrow) {
    return narrow ? 8 : kind == EM_BOOL ? 1 : em_is_text(kind) ? sizeof(uint32_t) : em_width(kind);
}

/* Put a decimal that was packed in eight bytes into sixteen. */
static inline void em_widen(uint8_t *to, const uint8_t *from) {
    int64_t words[2];
    memcpy(words, from, 8);
    words[1] = words[0] >> 63;
    memcpy(to, words, sizeof words);
}

/* Bytes that one row's payload takes. */
size_t em_payload_bytes(const em_payload *payload, const em_columns *columns, size_t row);

/* Write one row's payload of em_payload_bytes() bytes, and return its end. */
uint8_t *em_payload_write(const em_payload *payload, const em_columns *columns, size_t row,
                          uint8_t *out);

/* Bytes before the text of rows packed from arrays of these kinds. */
size_t em_packed_head_bytes(const em_array *arrays, size_t count);

/* Add each column's text of one packed row to `arrays[i].text_bytes`; false
 * when the row's parts do not add up to its bytes. */
bool em_packed_measure(em_array *arrays, size_t count, const uint8_t *packed, size_t bytes);

#endif
