/* A batch under construction: columns laid out in memory that was given, filled row by row. */
#ifndef EMSQRT_CSV_BATCH_H
#define EMSQRT_CSV_BATCH_H

#include "csv_types.h"

typedef struct {
    em_type type;
    uint8_t *validity, *values;
    int32_t *ends;    /* text only */
    size_t room;      /* bytes of text there is room for */
    size_t row_bytes; /* bytes of text expected of a row */
    bool has_null;
} em_building;

typedef struct {
    uint8_t *memory;
    size_t memory_bytes;
    size_t column_count;
    em_building *columns;
    em_column *views; /* as many; filled by em_batch_view */
    em_span *lines;
    size_t row_count, row_capacity;
} em_batch;

/* Lay the columns out anew for as many rows as `memory` has room for; false when that is none. */
bool em_batch_begin(em_batch *batch);

/* Lay them out for a single row with this much text in each column; false when it has no room. */
bool em_batch_begin_long(em_batch *batch, const size_t *text_bytes);

/* Each puts the value of a column's next row, which em_batch_commit then counts. */
void em_batch_null(em_batch *batch, size_t column);
void em_batch_fixed(em_batch *batch, size_t column, const void *value);

/* Return where `size` bytes of text may be written, or NULL without room; em_batch_text takes
 * however many of them were. */
uint8_t *em_batch_reserve(em_batch *batch, size_t column, size_t size);
void em_batch_text(em_batch *batch, size_t column, size_t size);

void em_batch_commit(em_batch *batch, em_span line);

/* Forget what was put since the last commit. */
void em_batch_undo(em_batch *batch);

/* Return the rows as columns, and learn from them how long text is. */
em_columns em_batch_view(em_batch *batch, const uint8_t *text);

#endif
