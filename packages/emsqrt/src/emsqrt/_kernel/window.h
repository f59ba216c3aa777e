/* Window functions over frames of sorted rows: sums that rows enter and leave, the minimum or
 * maximum of a sliding frame, and the bounds of RANGE frames.
 *
 * Rows are numbered from 0 in their order. A frame is [low, high); neither bound decreases from one
 * row to the next. Values arrive in chunks, as columns of some of the rows: a loop stops where a
 * chunk ends, reports at which end of the frame it needs the next chunk, and is called again.
 */
#ifndef EMSQRT_WINDOW_H
#define EMSQRT_WINDOW_H

#include "columns.h"
#include "float_sum.h"

/* A column with the values of the rows from `first` on. */
typedef struct {
    em_column column;
    int64_t first;
    size_t rows;
} em_chunk;

/* The frames of rows; those from `row` on are still to be computed. */
typedef struct {
    const int64_t *low, *high;
    size_t rows, row;
} em_frames;

enum em_window_stop { EM_WINDOW_DONE, EM_WINDOW_HIGH, EM_WINDOW_LOW, EM_WINDOW_FULL };

enum { EM_NEW_PEERS = 1, EM_NEW_PARTITION = 2 };

/* Flag for each of `rows` sorted rows (rows.h) whether its key, or the first columns of its key
 * (ascending, nulls last, of these kinds), differ from those of the row before. Return the offset
 * of the last row, or SIZE_MAX when the rows are damaged. */
size_t em_row_changes(const uint8_t *block, size_t bytes, size_t start, size_t rows,
                      const uint8_t *kinds, size_t kind_count, const uint8_t *previous,
                      uint8_t *flags);

/* Map a fixed-width value to an integer with the same order: NaN greatest, -0.0 as 0.0. */
em_i128 em_value_order(const em_column *column, size_t row);

enum em_frame_op { EM_FRAME_COUNT, EM_FRAME_SUM, EM_FRAME_MEAN };

/* All bins of spec/float-sum.md, and the number of values whose top is in each bin. A value can
 * thus be removed again, and the frame's own top decides which three bins count. */
typedef struct {
    em_i128 bins[EM_FLOAT_BINS + 3];
    uint64_t tops[EM_FLOAT_BINS + 3];
    int32_t top;
    uint64_t pos_inf, neg_inf, nan;
} em_sliding_floats;

typedef struct {
    enum em_frame_op op;
    enum em_kind kind;
    int scale;
    int64_t low, high; /* the rows that have been added and not removed */
    int64_t count;     /* number of these rows that are not null */
    em_sum sum;
    em_sliding_floats floats;
} em_frame_sum;

typedef struct {
    uint8_t *values, *validity; /* 8 bytes a row, 16 for a sum of decimals; one bit, zeroed */
} em_frame_out;

void em_frame_sum_clear(em_frame_sum *sum);

/* Compute the results of frames. FULL: the sum of row `frames->row` does not fit its type. */
enum em_window_stop em_frame_sum_run(em_frame_sum *sum, em_frames *frames, const em_chunk *high,
                                     const em_chunk *low, const em_frame_out *out);

typedef struct {
    em_i128 order; /* the value's order; for text the offset of its bytes, and their number */
    int64_t row;
} em_candidate;

/* The row with the minimum or maximum of a frame, the first of equal ones: a queue in which each
 * row is better than all rows after it. */
typedef struct {
    bool greatest, sliding, text;
    em_candidate *queue; /* a ring */
    size_t room, first, count;
    uint8_t *bytes; /* bytes of the queue's texts, from `head` to `tail` */
    size_t bytes_room, head, tail;
    int64_t high;
} em_frame_minmax;

/* Write the number of the best row of each frame, -1 when a frame has no value. FULL: the queue is
 * full. */
enum em_window_stop em_frame_minmax_run(em_frame_minmax *best, em_frames *frames,
                                        const em_chunk *high, int64_t *out);

typedef struct {
    bool is_end, descending, nulls_first;
    int64_t offset;
    int64_t at;
} em_range_bound;

typedef struct {
    em_chunk keys; /* whole numbers */
    const uint8_t *flags;
    bool last; /* no rows follow these */
} em_range_rows;

/* Write the bounds of RANGE frames: the row where the frame begins (or ends) whose bound is
 * `offset` from the row's key; -1 when the key is null. `now` has the keys of the rows and
 * `partitions` the first row of each row's partition; `ahead` is searched for the bound. */
enum em_window_stop em_range_bound_run(em_range_bound *bound, const em_chunk *now,
                                       const int64_t *partitions, size_t *row,
                                       const em_range_rows *ahead, int64_t *out);

#endif
