/* Functions over frames of sorted rows: sums that grow at one end and shrink at the other, the best
 * value of a sliding frame, and where a frame by value begins or ends.
 *
 * Rows are numbered from 0 in their order. A frame is [low, high); from row to row neither bound
 * falls. Values come in chunks, as the columns of some of the rows: a loop stops where a chunk
 * ends, says at which end it needs the next, and is called again.
 */
#ifndef EMSQRT_WINDOW_H
#define EMSQRT_WINDOW_H

#include "columns.h"
#include "float_sum.h"

/* One column of the rows from `first` on. */
typedef struct {
    em_column column;
    int64_t first;
    size_t rows;
} em_chunk;

/* The frames of rows, of which those from `row` on are to be done. */
typedef struct {
    const int64_t *low, *high;
    size_t rows, row;
} em_frames;

enum em_window_stop { EM_WINDOW_DONE, EM_WINDOW_HIGH, EM_WINDOW_LOW, EM_WINDOW_FULL };

enum { EM_NEW_PEERS = 1, EM_NEW_PARTITION = 2 };

/* Tell for each of `rows` sorted rows (rows.h) whether its key, or the first columns of its key
 * (ascending, nulls last, of these kinds), differ from those of the row before. Returns the offset
 * of the last row, or SIZE_MAX when the rows are damaged. */
size_t em_row_changes(const uint8_t *block, size_t bytes, size_t start, size_t rows,
                      const uint8_t *kinds, size_t kind_count, const uint8_t *previous,
                      uint8_t *flags);

/* The order of a fixed-width value among those of its kind: NaN greatest, -0.0 as 0.0. */
em_i128 em_value_order(const em_column *column, size_t row);

enum em_frame_op { EM_FRAME_COUNT, EM_FRAME_SUM, EM_FRAME_MEAN };

/* All bins of spec/float-sum.md, and how many values have their top in each, so that a value can
 * leave again and the three bins that count are those of the frame's own top. */
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
    int64_t low, high; /* the rows that are in */
    int64_t count;     /* of them not null */
    em_sum sum;
    em_sliding_floats floats;
} em_frame_sum;

typedef struct {
    uint8_t *values, *validity; /* 8 bytes a row, 16 for a sum of decimals; one bit, zeroed */
} em_frame_out;

void em_frame_sum_clear(em_frame_sum *sum);

/* FULL: row `frames->row` has a sum beyond its type. */
enum em_window_stop em_frame_sum_run(em_frame_sum *sum, em_frames *frames, const em_chunk *high,
                                     const em_chunk *low, const em_frame_out *out);

typedef struct {
    em_i128 order; /* of text: where its bytes lie, and how many */
    int64_t row;
} em_candidate;

/* The best row of a frame, the first of equals: a queue of rows each better than all after it. */
typedef struct {
    bool greatest, sliding, text;
    em_candidate *queue; /* a ring */
    size_t room, first, count;
    uint8_t *bytes; /* of text, from `head` to `tail` */
    size_t bytes_room, head, tail;
    int64_t high;
} em_frame_best;

/* Writes row numbers, -1 where a frame has no value. FULL: the queue has no room. */
enum em_window_stop em_frame_best_run(em_frame_best *best, em_frames *frames, const em_chunk *high,
                                      int64_t *out);

typedef struct {
    bool is_end, descending, nulls_first;
    int64_t offset;
    int64_t at;
} em_range_bound;

typedef struct {
    em_chunk keys; /* whole numbers */
    const uint8_t *flags;
    bool last; /* no row follows */
} em_range_rows;

/* Writes where the frames of rows begin (or end) whose bound is `offset` from their keys; -1 where
 * the key is null. `now` holds the rows from `partitions[row]`'s index on; `ahead` is searched. */
enum em_window_stop em_range_bound_run(em_range_bound *bound, const em_chunk *now,
                                       const int64_t *partitions, size_t *row,
                                       const em_range_rows *ahead, int64_t *out);

#endif
