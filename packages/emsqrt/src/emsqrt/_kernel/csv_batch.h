/* A batch of columns in the caller's memory, filled row by row. */
#ifndef EMSQRT_CSV_BATCH_H
#define EMSQRT_CSV_BATCH_H

#include <string.h>

#include "csv_types.h"

typedef struct {
    em_type type;
    uint8_t *validity, *values;
    int32_t *ends;        /* text only */
    size_t room;          /* bytes of text that fit */
    size_t row_bytes;     /* expected bytes of text per row */
    bool has_null, quick; /* quick: see csv_quick.h */
} em_building;

typedef struct {
    uint8_t *memory;
    size_t memory_bytes;
    size_t column_count;
    em_building *columns;
    em_column *views; /* column_count of them; filled by em_batch_view */
    em_span *lines;
    size_t row_count, row_capacity;
} em_batch;

/* Divide `memory` among the columns for as many rows as fit; false when not even one fits. */
bool em_batch_begin(em_batch *batch);

/* Divide `memory` among the columns for a single row whose texts have these lengths; false when it
 * does not fit. */
bool em_batch_begin_long(em_batch *batch, const size_t *text_bytes);

static inline void em_clear_bit(uint8_t *bits, size_t index) {
    bits[index >> 3] = (uint8_t)(bits[index >> 3] & ~(1u << (index & 7)));
}

static inline void em_set_bit(uint8_t *bits, size_t index) {
    bits[index >> 3] = (uint8_t)(bits[index >> 3] | 1u << (index & 7));
}

/* Each of these sets the value of a column's next row, which em_batch_commit then counts. */
void em_batch_null(em_batch *batch, size_t column);

static inline void em_batch_fixed(em_batch *batch, size_t index, const void *value) {
    em_building *column = &batch->columns[index];
    const size_t row = batch->row_count;
    switch (em_width(column->type.kind)) {
    case 8:
        memcpy(column->values + row * 8, value, 8);
        break;
    case 4:
        memcpy(column->values + row * 4, value, 4);
        break;
    case 16:
        memcpy(column->values + row * 16, value, 16);
        break;
    case 2:
        memcpy(column->values + row * 2, value, 2);
        break;
    case 1:
        memcpy(column->values + row, value, 1);
        break;
    default:
        if (*(const uint8_t *)value != 0) {
            em_set_bit(column->values, row);
        } else {
            em_clear_bit(column->values, row);
        }
    }
}

/* Return where `size` bytes of text may be written, or NULL when they do not fit; em_batch_text
 * then sets how many of them were written. */
static inline uint8_t *em_batch_reserve(em_batch *batch, size_t index, size_t size) {
    em_building *column = &batch->columns[index];
    const size_t start = (size_t)column->ends[batch->row_count];
    return size > column->room - start ? NULL : column->values + start;
}

static inline void em_batch_text(em_batch *batch, size_t index, size_t size) {
    em_building *column = &batch->columns[index];
    const int32_t start = column->ends[batch->row_count];
    column->ends[batch->row_count + 1] = start + (int32_t)size;
}

static inline void em_batch_commit(em_batch *batch, em_span line) {
    batch->lines[batch->row_count++] = line;
}

/* Discard the values set since the last commit. */
void em_batch_undo(em_batch *batch);

/* Return the committed rows as columns, and update the expected length of texts. */
em_columns em_batch_view(em_batch *batch, const uint8_t *text);

#endif
