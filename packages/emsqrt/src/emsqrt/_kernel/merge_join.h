/* Joining two inputs that are sorted by their keys: both are read once, side by side. */
#ifndef EMSQRT_MERGE_JOIN_H
#define EMSQRT_MERGE_JOIN_H

#include "join.h"

enum em_merge_stop {
    EM_MERGE_LEFT,     /* the left block has ended */
    EM_MERGE_RIGHT,    /* more of the right side must lie behind what is there */
    EM_MERGE_OUT,      /* `out` is full */
    EM_MERGE_REST,     /* `rest` is full */
    EM_MERGE_UNSORTED, /* a key is below the one before it */
    EM_MERGE_DAMAGED,
};

typedef struct {
    size_t left_at, right_at;
    size_t group_end; /* beyond right_at: where the rows end that have the key of right_at */
    size_t inner;     /* the next of them for the left row, when `inside` */
    bool inside;
    bool right_ended;             /* nothing follows the right block */
    bool right_keyed;             /* a right row with a key was passed over, */
    bool right_nulls;             /* and then one without: only a greater key may come */
    size_t left_last, right_last; /* the rows before left_at and right_at; SIZE_MAX for none */
    unsigned flags;               /* em_join_flags */
} em_merge_join;

/* Go on. Right rows that nothing matched are copied to `rest` where the flags have EM_JOIN_MARK. */
enum em_merge_stop em_merge_join_rows(em_merge_join *merge, const uint8_t *left, size_t left_size,
                                      const uint8_t *right, size_t right_size, em_joined_out *out,
                                      em_joined_out *rest);

/* Where the rows from `at` on end that have this key; SIZE_MAX when the block is damaged. */
size_t em_key_run(const uint8_t *block, size_t size, size_t at, const uint8_t *key,
                  uint32_t key_bytes);

/* Where the rows from `at` on end that have a key, none below the one before it or the one that is
 * given, and that take no more than `limit` bytes, one row excepted; SIZE_MAX when the block is
 * damaged. `*last` becomes the place of the last of them. */
size_t em_sorted_run(const uint8_t *block, size_t size, size_t at, size_t limit, const uint8_t *key,
                     uint32_t key_bytes, size_t *rows, size_t *last);

/* Mark rows from `*at` on whose key is not above the last that the other side has come to, but for
 * those that lie in `rest` (from `*rest_at` on, in the same order), which nothing matched. FULL:
 * the row at `*at` is above it, and so is all that follows; ON: either block has ended. */
enum em_walk em_mark_matched(uint8_t *block, size_t size, size_t *at, const uint8_t *rest,
                             size_t rest_size, size_t *rest_at, bool rest_ended,
                             const uint8_t *last, uint32_t last_bytes);

#endif
