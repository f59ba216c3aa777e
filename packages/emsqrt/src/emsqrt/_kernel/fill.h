/* Arrow arrays that are filled row by row, in memory whose size was computed before. */
#ifndef EMSQRT_FILL_H
#define EMSQRT_FILL_H

#include <string.h>

#include "columns.h"

#define EM_ARRAY_ALIGN 64u

typedef struct {
    enum em_kind kind;
    em_narrow narrow;
    size_t text_bytes; /* of all rows; set before em_arrays_place() */
    size_t field;      /* offset of its field in a packed row */
    size_t next_text;  /* index of the next array of text, see em_packed_open() */
    size_t null_count;
    uint8_t *validity; /* the three are in one buffer, each aligned to 64 bytes of it */
    uint8_t *values;
    int32_t *ends; /* text and bytes only */
} em_array;

static inline bool em_is_text(enum em_kind kind) {
    return kind == EM_TEXT || kind == EM_BYTES;
}

/* An upper bound of the bytes that `rows` rows need, `text_bytes` of text included. */
size_t em_arrays_bound(const em_array *arrays, size_t count, size_t rows, size_t text_bytes);

/* The number of rows without text that fit `out_bytes`, or a lower bound of it. */
size_t em_arrays_rows(const em_array *arrays, size_t count, size_t out_bytes);

/* Place the arrays in `out`, which has em_arrays_bound() bytes, and zero them. */
void em_arrays_place(em_array *arrays, size_t count, size_t rows, uint8_t *out);

/* Bytes of the array's values buffer. */
size_t em_array_values_bytes(const em_array *array, size_t rows);

static inline void em_array_put_null(em_array *array, size_t row) {
    array->null_count++;
    if (array->ends != NULL) {
        array->ends[row + 1] = array->ends[row];
    }
}

static inline void em_array_mark_valid(em_array *array, size_t row) {
    array->validity[row >> 3] |= (uint8_t)(1u << (row & 7));
}

/* Mark `rows` rows valid from `first` on, a multiple of 8. */
static inline void em_array_mark_all_valid(em_array *array, size_t first, size_t rows) {
    uint8_t *bits = array->validity + first / 8;
    memset(bits, 0xff, rows / 8);
    if (rows % 8 != 0) {
        bits[rows / 8] = (uint8_t)((1u << (rows % 8)) - 1);
    }
}

/* Store a fixed-width value, or a boolean of one byte. */
static inline void em_array_put_fixed(em_array *array, size_t row, const uint8_t *value) {
    em_array_mark_valid(array, row);
    if (array->kind == EM_BOOL) {
        array->values[row >> 3] |= (uint8_t)((*value != 0) << (row & 7));
    } else {
        const size_t width = em_width(array->kind);
        em_copy_value(array->values + row * width, value, width);
    }
}

/* As em_array_put_fixed(), for a value of at most eight bytes in the low bytes of `word`. */
static inline void em_array_put_word(em_array *array, size_t row, uint64_t word) {
    em_array_mark_valid(array, row);
    if (array->kind == EM_BOOL) {
        array->values[row >> 3] |= (uint8_t)(((uint8_t)word != 0) << (row & 7));
    } else {
        const size_t width = em_width(array->kind);
        em_copy_word(array->values + row * width, &word, width);
    }
}

static inline void em_array_put_double(em_array *array, size_t row, double value) {
    uint64_t word;
    memcpy(&word, &value, sizeof word);
    em_array_put_word(array, row, word);
}

/* Where to write the text of `row`; em_array_end_text() then sets its length. */
static inline uint8_t *em_array_text(em_array *array, size_t row) {
    return array->values + array->ends[row];
}

static inline void em_array_end_text(em_array *array, size_t row, size_t bytes) {
    em_array_mark_valid(array, row);
    array->ends[row + 1] = array->ends[row] + (int32_t)bytes;
}

#endif
