/* Rows into states: one part of the records at a time, over a short stretch of rows. */
#ifndef EMSQRT_ACCUMULATE_H
#define EMSQRT_ACCUMULATE_H

#include "states.h"

#define EM_ROW_BATCH_MAX 1024u

typedef struct {
    const em_columns *columns;
    size_t start, count;     /* rows start .. start + count, at most EM_ROW_BATCH_MAX */
    uint8_t *const *records; /* the record of each row */
    bool one;                /* all of them are records[0] */
    uint64_t sequence;       /* the number of row `start` */
    em_heap *heap;           /* has room for em_row_batch_growth() */
} em_row_batch;

/* The most heap that the rows can take. */
/* The bytes of text that extremes and the like hold of rows. */
size_t em_row_batch_texts(const em_layout *layout, const em_columns *columns, size_t start,
                          size_t count);

size_t em_row_batch_growth(const em_layout *layout, const em_columns *columns, size_t start,
                           size_t count);

/* Add the rows to every part; false when a state that was read is damaged. */
bool em_accumulate(const em_layout *layout, const em_row_batch *stretch);

/* One value of a number's column as a double, rounded once. */
double em_value_as_double(const em_column *column, size_t row, int32_t scale);

#endif
