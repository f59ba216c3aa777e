/* A hash table over the build side's rows, probed with blocks of the other side's.
 *
 * Rows lie back to back from the bottom of the memory, in build order. Once all are there an index
 * goes behind them: entries grouped by bucket, in build order within each, and where each bucket
 * ends. Nothing else is needed, so what fits is known exactly while rows are added.
 */
#ifndef EMSQRT_JOIN_H
#define EMSQRT_JOIN_H

#include "join_rows.h"

enum em_join_flags {
    EM_JOIN_PAIRS = 1,      /* write every match */
    EM_JOIN_LONE = 2,       /* write probe rows that match nothing */
    EM_JOIN_FIRST = 4,      /* write probe rows that match something, alone */
    EM_JOIN_MARK = 8,       /* remember which build rows matched */
    EM_JOIN_SWAPPED = 16,   /* the build rows are the left side */
    EM_JOIN_SEQUENCED = 32, /* left payloads begin with their row's number */
    EM_JOIN_RIGHT_SEQUENCED = 64,
    EM_JOIN_PLACED = 128, /* the build rows are the left side, their places serve as numbers */
};

typedef struct {
    uint8_t *memory;
    size_t size;
    size_t rows_bytes, row_count; /* rows with an empty key are stored, and not indexed */
    size_t key_count;
    uint64_t *entries; /* 24 bits of hash, 40 of the row's place */
    uint32_t *ends;    /* where each bucket's entries end; the one before ends where they begin */
    bool indexed;
    size_t drained; /* how far em_join_drain came */
    bool inside;    /* the next probe goes on within a row: */
    bool matched;   /* whether it matched so far */
    uint32_t next;  /* and the entry to look at next */
} em_join_table;

typedef struct {
    const uint8_t *block;
    size_t size, at, passed;
    unsigned flags;
    uint8_t *bits; /* one a probe row, or NULL: set by a match; EM_JOIN_FIRST skips set ones */
    size_t first_bit;
} em_join_probe;

/* Store rows of a block from `*at` on while they fit; with `keys_only` without their payloads, and
 * none whose key is empty. EM_WALK_FULL: the row at `*at` does not fit. */
enum em_walk em_join_add(em_join_table *table, const uint8_t *block, size_t size, size_t *at,
                         bool keys_only);

/* Build the index. */
void em_join_index(em_join_table *table);

/* Keep the first of the rows with equal keys; the table takes rows again. */
void em_join_distinct(em_join_table *table);

/* Go on with a block. EM_WALK_FULL: call again with more room in `out`. */
enum em_walk em_join_probe_rows(em_join_table *table, em_join_probe *probe, em_joined_out *out);

/* Write the build rows that matched, or those that did not, in build order; go on where the last
 * call stopped. EM_WALK_FULL: call again. */
enum em_walk em_join_drain(em_join_table *table, bool matched, unsigned flags, em_joined_out *out);

#endif
