/* Add rows of columns to the states of their groups, one part at a time over a batch of rows. */
#ifndef EMSQRT_ACCUMULATE_H
#define EMSQRT_ACCUMULATE_H

#include "states.h"

#define EM_ROW_BATCH_MAX 1024u

typedef struct {
    const em_columns *columns;
    size_t start, count;     /* rows start .. start + count, at most EM_ROW_BATCH_MAX */
    uint8_t *const *records; /* the group's record for each row */
    bool one;                /* every row belongs to records[0] */
    uint64_t sequence;       /* the number of row `start` */
    em_heap *heap;           /* has room for em_row_batch_growth() */
} em_row_batch;

/* The bytes of text that the rows may add to minima, maxima, first and last values. */
size_t em_row_batch_texts(const em_layout *layout, const em_columns *columns, size_t start,
                          size_t count);

/* An upper bound of the heap bytes that adding the rows can allocate. */
size_t em_row_batch_growth(const em_layout *layout, const em_columns *columns, size_t start,
                           size_t count);

/* Add the rows to the state of every part; return false when a state read from a column is damaged.
 */
bool em_accumulate(const em_layout *layout, const em_row_batch *batch);

/* Return one value of a numeric column as a double, rounded once. */
double em_value_as_double(const em_column *column, size_t row, int32_t scale);

#endif
