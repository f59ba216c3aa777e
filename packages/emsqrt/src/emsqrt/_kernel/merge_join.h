/* A merge join: both inputs are sorted by their keys, and each is read once. */
#ifndef EMSQRT_MERGE_JOIN_H
#define EMSQRT_MERGE_JOIN_H

#include "join.h"

enum em_merge_stop {
    EM_MERGE_LEFT,     /* the left block has ended */
    EM_MERGE_RIGHT,    /* the right block must be extended with further rows */
    EM_MERGE_OUT,      /* `out` is full */
    EM_MERGE_REST,     /* `rest` is full */
    EM_MERGE_UNSORTED, /* a key is less than the key before it */
    EM_MERGE_DAMAGED,
};

typedef struct {
    size_t left_at, right_at;
    size_t group_end; /* end of the right rows with the key of the row at right_at, when greater
                         than right_at */
    size_t inner;     /* offset of the next of these rows for the left row, when `inside` */
    bool inside;
    bool right_ended;             /* no further right rows follow the block */
    bool right_keyed;             /* a right row with a key was skipped, */
    bool right_nulls;             /* and then one without a key: the next key must be greater */
    size_t left_last, right_last; /* the rows before left_at and right_at; SIZE_MAX for none */
    unsigned flags;               /* em_join_flags */
} em_merge_join;

/* Continue the join. With EM_JOIN_MARK in the flags, right rows without a match are copied to
 * `rest`. */
enum em_merge_stop em_merge_join_rows(em_merge_join *merge, const uint8_t *left, size_t left_size,
                                      const uint8_t *right, size_t right_size, em_join_output *out,
                                      em_join_output *rest);

/* Return the end of the rows with this key that start at `at`; SIZE_MAX when the block is damaged.
 */
size_t em_key_run(const uint8_t *block, size_t size, size_t at, const uint8_t *key,
                  uint32_t key_bytes);

/* Return the end of the rows from `at` on whose keys are not empty and ascend, the first not below
 * `key`, and which have at most `limit` bytes together, though at least one row; SIZE_MAX when the
 * block is damaged. `*last` receives the offset of the last of them. */
size_t em_sorted_run(const uint8_t *block, size_t size, size_t at, size_t limit, const uint8_t *key,
                     uint32_t key_bytes, size_t *rows, size_t *last);

/* Mark rows from `*at` on whose key is at most `last`, the last key that the other side has
 * reached, except the rows in `rest` (from `*rest_at` on, in the same order), which have no match.
 * FULL: the key of the row at `*at` is greater, and so are all that follow; ON: either block has
 * ended. */
enum em_walk em_mark_matched(uint8_t *block, size_t size, size_t *at, const uint8_t *rest,
                             size_t rest_size, size_t *rest_at, bool rest_ended,
                             const uint8_t *last, uint32_t last_bytes);

#endif
