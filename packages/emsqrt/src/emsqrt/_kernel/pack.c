#include "pack.h"

#include <string.h>

#include "rows.h"

static inline size_t null_bytes(size_t count) {
    return (count + 7) / 8;
}

static inline size_t field_bytes(const em_column *column) {
    return em_field_bytes(column->kind, column->narrow);
}

static inline const uint8_t *text_of(const em_column *column, size_t row, size_t *bytes) {
    const int32_t *ends = column->ends + column->offset + row;
    *bytes = (size_t)(ends[1] - ends[0]);
    return column->values + ends[0];
}

#define WORDS_OF(TYPE)                                                                             \
    for (size_t r = 0; r < count; r++) {                                                           \
        TYPE value;                                                                                \
        memcpy(&value, values + r * width, sizeof value);                                          \
        words[r] = (uint64_t)(int64_t)value - least;                                               \
    }                                                                                              \
    break

void em_narrow_words(const em_column *column, size_t start, size_t count, uint64_t *words) {
    const size_t width = em_width(column->kind);
    const uint8_t *values = column->values + (column->offset + start) * width;
    const uint64_t least = (uint64_t)column->narrow.least;
    switch (width) {
    case 1:
        WORDS_OF(int8_t);
    case 2:
        WORDS_OF(int16_t);
    case 4:
        WORDS_OF(int32_t);
    default: /* or the low half of a decimal's 16 bytes */
        WORDS_OF(int64_t);
    }
}

size_t em_payload_bytes(const em_payload *payload, const em_columns *columns, size_t row) {
    if (payload->shape == EM_PAYLOAD_LINE) {
        return columns->lines[row].size;
    }
    size_t total = null_bytes(payload->count);
    for (size_t i = 0; i < payload->count; i++) {
        const em_column *column = &columns->columns[payload->columns[i]];
        total += field_bytes(column);
        if (em_is_text(column->kind) && em_is_valid(column, row)) {
            size_t bytes;
            (void)text_of(column, row, &bytes);
            total += bytes;
        }
    }
    return total;
}

/* Write one column's field, and its text at `text`; return the end of the text. */
static uint8_t *write_field(const em_column *column, size_t row, uint8_t *field, uint8_t *text) {
    const size_t at = column->offset + row;
    if (em_is_text(column->kind)) {
        size_t bytes;
        const uint8_t *found = text_of(column, row, &bytes);
        em_store32(field, (uint32_t)bytes);
        if (bytes > 0) {
            memcpy(text, found, bytes);
        }
        return text + bytes;
    }
    if (column->kind == EM_BOOL) {
        *field = em_bit(column->values, at);
    } else {
        const size_t width = em_width(column->kind);
        const uint8_t *value = column->values + at * width;
        if (column->narrow.bytes != 0) {
            uint64_t word;
            em_narrow_words(column, row, 1, &word);
            em_copy_word(field, &word, column->narrow.bytes);
        } else {
            em_copy_value(field, value, width);
        }
    }
    return text;
}

uint8_t *em_payload_write(const em_payload *payload, const em_columns *columns, size_t row,
                          uint8_t *out) {
    if (payload->shape == EM_PAYLOAD_LINE) {
        const em_span line = columns->lines[row];
        memcpy(out, columns->text + line.start, line.size);
        return out + line.size;
    }
    memset(out, 0, null_bytes(payload->count));
    uint8_t *field = out + null_bytes(payload->count), *text = field;
    for (size_t i = 0; i < payload->count; i++) {
        text += field_bytes(&columns->columns[payload->columns[i]]);
    }
    for (size_t i = 0; i < payload->count; i++) {
        const em_column *column = &columns->columns[payload->columns[i]];
        const size_t bytes = field_bytes(column);
        if (em_is_valid(column, row)) {
            text = write_field(column, row, field, text);
        } else {
            out[i >> 3] |= (uint8_t)(1u << (i & 7));
            memset(field, 0, bytes);
        }
        field += bytes;
    }
    return text;
}

em_packed_form em_packed_open(em_array *arrays, size_t count) {
    em_packed_form form = {null_bytes(count), count};
    for (size_t i = 0; i < count; i++) {
        arrays[i].field = form.head_bytes;
        form.head_bytes += em_field_bytes(arrays[i].kind, arrays[i].narrow);
    }
    for (size_t i = count; i-- > 0;) {
        arrays[i].next_text = form.first_text;
        if (em_is_text(arrays[i].kind)) {
            form.first_text = i;
        }
    }
    return form;
}

bool em_packed_measure(const em_packed_form *form, em_array *arrays, size_t count,
                       const uint8_t *packed, size_t bytes) {
    if (bytes < form->head_bytes) {
        return false;
    }
    size_t left = bytes - form->head_bytes;
    for (size_t i = form->first_text; i < count; i = arrays[i].next_text) {
        const size_t text = em_load32(packed + arrays[i].field);
        if (text > left || (em_bit(packed, i) && text != 0)) {
            return false;
        }
        left -= text;
        arrays[i].text_bytes += text;
    }
    return left == 0;
}
