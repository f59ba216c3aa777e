#include "row_columns.h"

#include <string.h>

#include "rows.h"

enum { SHORT_TEXT = 16, LONG_TEXT = 64 };

static inline size_t null_bytes(size_t count) {
    return (count + 7) / 8;
}

static inline size_t field_bytes(const em_column *column) {
    return em_field_bytes(column->kind, column->narrow);
}

/* Copy a text; a short one with one to four instructions, when those read and write within bounds.
 */
static inline void copy_text(uint8_t *to, const uint8_t *to_end, const uint8_t *from,
                             const uint8_t *from_end, size_t bytes) {
    if (bytes <= SHORT_TEXT && to_end - to >= SHORT_TEXT && from_end - from >= SHORT_TEXT) {
        memcpy(to, from, SHORT_TEXT);
    } else if (bytes <= LONG_TEXT && to_end - to >= LONG_TEXT && from_end - from >= LONG_TEXT) {
        memcpy(to, from, LONG_TEXT);
    } else if (bytes >= SHORT_TEXT && bytes <= 2 * SHORT_TEXT) {
        memcpy(to, from, SHORT_TEXT);
        memcpy(to + bytes - SHORT_TEXT, from + bytes - SHORT_TEXT, SHORT_TEXT);
    } else if (bytes > 0) {
        memcpy(to, from, bytes);
    }
}

static size_t head_bytes(const em_payload *payload, const em_columns *columns) {
    size_t total = null_bytes(payload->count);
    for (size_t i = 0; i < payload->count; i++) {
        total += field_bytes(&columns->columns[payload->columns[i]]);
    }
    return total;
}

void em_row_columns_sizes(const em_payload *payload, const em_columns *columns, size_t start,
                          size_t count, size_t *bytes) {
    const size_t head = head_bytes(payload, columns);
    for (size_t r = 0; r < count; r++) {
        bytes[r] = head;
    }
    for (size_t i = 0; i < payload->count; i++) {
        const em_column *column = &columns->columns[payload->columns[i]];
        if (!em_is_text(column->kind)) {
            continue;
        }
        const int32_t *ends = column->ends + column->offset + start;
        for (size_t r = 0; r < count; r++) {
            const size_t text = (size_t)(ends[r + 1] - ends[r]);
            bytes[r] += em_is_valid(column, start + r) ? text : 0;
        }
    }
}

#define WRITE_EACH(WIDTH, STEP)                                                                    \
    for (size_t r = 0; r < count; r++) {                                                           \
        memcpy(out[r] + field, values + r * (STEP), (WIDTH));                                      \
    }                                                                                              \
    break
#define WRITE_FIXED(WIDTH) WRITE_EACH(WIDTH, WIDTH)
#define WRITE_WORD(WIDTH) WRITE_EACH(WIDTH, sizeof(uint64_t))

static void write_narrow(const em_column *column, size_t start, size_t count, size_t field,
                         uint8_t *const *out) {
    uint64_t words[EM_ROW_COLUMNS_MAX];
    em_narrow_words(column, start, count, words);
    const uint8_t *values = (const uint8_t *)words;
    switch (column->narrow.bytes) {
    case 8:
        WRITE_WORD(8);
    case 4:
        WRITE_WORD(4);
    case 2:
        WRITE_WORD(2);
    default:
        WRITE_WORD(1);
    }
}

static void write_fixed(const em_column *column, size_t start, size_t count, size_t field,
                        uint8_t *const *out) {
    const size_t width = em_width(column->kind), at = column->offset + start;
    const uint8_t *values = column->values + at * width;
    if (column->narrow.bytes != 0) {
        write_narrow(column, start, count, field, out);
        return;
    }
    switch (width) {
    case 16:
        WRITE_FIXED(16);
    case 8:
        WRITE_FIXED(8);
    case 4:
        WRITE_FIXED(4);
    case 2:
        WRITE_FIXED(2);
    case 1:
        WRITE_FIXED(1);
    default:
        for (size_t r = 0; r < count; r++) {
            out[r][field] = em_bit(column->values, at + r);
        }
    }
}

/* Mark the nulls of a fixed-width column and zero their fields. */
static void write_nulls(const em_column *column, size_t start, size_t count, size_t index,
                        size_t field, uint8_t *const *out) {
    const size_t bytes = field_bytes(column);
    for (size_t r = 0; r < count; r++) {
        if (!em_is_valid(column, start + r)) {
            out[r][index >> 3] |= (uint8_t)(1u << (index & 7));
            memset(out[r] + field, 0, bytes);
        }
    }
}

static void write_text(const em_column *column, size_t start, size_t count, size_t index,
                       size_t field, uint8_t *const *out, const size_t *bytes, uint8_t **text) {
    const int32_t *ends = column->ends + column->offset + start;
    const uint8_t *from_end = column->values + ends[count];
    for (size_t r = 0; r < count; r++) {
        if (!em_is_valid(column, start + r)) {
            out[r][index >> 3] |= (uint8_t)(1u << (index & 7));
            em_store32(out[r] + field, 0);
            continue;
        }
        const size_t size = (size_t)(ends[r + 1] - ends[r]);
        em_store32(out[r] + field, (uint32_t)size);
        copy_text(text[r], out[r] + bytes[r], column->values + ends[r], from_end, size);
        text[r] += size;
    }
}

void em_row_columns_write(const em_payload *payload, const em_columns *columns, size_t start,
                          size_t count, const size_t *bytes, uint8_t *const *out) {
    uint8_t *text[EM_ROW_COLUMNS_MAX];
    const size_t head = head_bytes(payload, columns);
    size_t field = null_bytes(payload->count);
    for (size_t r = 0; r < count; r++) {
        text[r] = out[r] + head;
        memset(out[r], 0, field);
    }
    for (size_t i = 0; i < payload->count; i++) {
        const em_column *column = &columns->columns[payload->columns[i]];
        if (em_is_text(column->kind)) {
            write_text(column, start, count, i, field, out, bytes, text);
        } else {
            write_fixed(column, start, count, field, out);
            if (column->validity != NULL) {
                write_nulls(column, start, count, i, field, out);
            }
        }
        field += field_bytes(column);
    }
}

static bool has_null(const uint8_t *const *packed, size_t rows, size_t index) {
    uint8_t any = 0;
    for (size_t r = 0; r < rows; r++) {
        any |= packed[r][index >> 3];
    }
    return any >> (index & 7) & 1;
}

#define READ_EACH(WIDTH, STEP)                                                                     \
    for (size_t r = 0; r < rows; r++) {                                                            \
        memcpy(values + r * (STEP), packed[r] + field, (WIDTH));                                   \
    }                                                                                              \
    break
#define READ_FIXED(WIDTH) READ_EACH(WIDTH, WIDTH)
#define READ_WORD(WIDTH) READ_EACH(WIDTH, sizeof(uint64_t))

static void read_narrow(em_array *array, const uint8_t *const *packed, size_t field, size_t first,
                        size_t rows) {
    const size_t width = em_width(array->kind);
    const em_narrow narrow = array->narrow;
    uint8_t *to = array->values + first * width;
    uint64_t words[EM_ROW_COLUMNS_MAX] = {0};
    uint8_t *values = (uint8_t *)words;
    switch (narrow.bytes) {
    case 8:
        READ_WORD(8);
    case 4:
        READ_WORD(4);
    case 2:
        READ_WORD(2);
    default:
        READ_WORD(1);
    }
    for (size_t r = 0; r < rows; r++) {
        words[r] += (uint64_t)narrow.least;
    }
    if (width == 8) {
        memcpy(to, words, rows * sizeof *words);
        return;
    }
    for (size_t r = 0; width == 16 && r < rows; r++) {
        const int64_t both[2] = {(int64_t)words[r], (int64_t)words[r] >> 63};
        memcpy(to + r * sizeof both, both, sizeof both);
    }
    for (size_t r = 0; width < 8 && r < rows; r++) {
        em_copy_word(to + r * width, &words[r], width);
    }
}

static void read_fixed(em_array *array, const uint8_t *const *packed, size_t field, size_t first,
                       size_t rows) {
    const size_t width = em_width(array->kind);
    uint8_t *values = array->values + first * width;
    if (array->narrow.bytes != 0) {
        read_narrow(array, packed, field, first, rows);
        return;
    }
    switch (width) {
    case 16:
        READ_FIXED(16);
    case 8:
        READ_FIXED(8);
    case 4:
        READ_FIXED(4);
    case 2:
        READ_FIXED(2);
    case 1:
        READ_FIXED(1);
    default:
        for (size_t r = 0; r < rows; r++) {
            const size_t row = first + r;
            array->values[row >> 3] |= (uint8_t)((packed[r][field] != 0) << (row & 7));
        }
    }
}

/* Read a fixed-width column that has nulls among these rows. */
static void read_with_nulls(em_array *array, const uint8_t *const *packed, size_t index,
                            size_t field, size_t first, size_t rows) {
    for (size_t r = 0; r < rows; r++) {
        if (em_bit(packed[r], index)) {
            em_array_put_null(array, first + r);
        } else if (array->narrow.bytes != 0) {
            const size_t width = em_width(array->kind);
            em_array_mark_valid(array, first + r);
            em_widen(array->narrow, array->values + (first + r) * width, width, packed[r] + field);
        } else {
            em_array_put_fixed(array, first + r, packed[r] + field);
        }
    }
}

static void read_text(em_array *array, const uint8_t *const *packed, const uint8_t *end,
                      size_t field, size_t first, size_t rows, const uint8_t **text) {
    const uint8_t *to_end = array->values + array->text_bytes;
    uint8_t *to = array->values + array->ends[first];
    for (size_t r = 0; r < rows; r++) {
        const size_t bytes = em_load32(packed[r] + field);
        copy_text(to, to_end, text[r], end, bytes);
        to += bytes;
        text[r] += bytes;
        array->ends[first + r + 1] = (int32_t)(to - array->values);
    }
}

void em_row_columns_read(const em_packed_form *form, em_array *arrays, size_t count,
                         const uint8_t *const *packed, const uint8_t *end, size_t first,
                         size_t rows) {
    const uint8_t *text[EM_ROW_COLUMNS_MAX];
    for (size_t r = 0; r < rows; r++) {
        text[r] = packed[r] + form->head_bytes;
    }
    for (size_t i = 0; i < count; i++) {
        em_array *array = &arrays[i];
        const size_t field = array->field;
        const bool nulls = has_null(packed, rows, i);
        if (!nulls) {
            em_array_mark_all_valid(array, first, rows);
        }
        if (em_is_text(array->kind)) {
            read_text(array, packed, end, field, first, rows, text);
        } else if (!nulls) {
            read_fixed(array, packed, field, first, rows);
        } else {
            read_with_nulls(array, packed, i, field, first, rows);
        }
        for (size_t r = 0; nulls && em_is_text(array->kind) && r < rows; r++) {
            if (em_bit(packed[r], i)) {
                array->null_count++;
            } else {
                em_array_mark_valid(array, first + r);
            }
        }
    }
}
