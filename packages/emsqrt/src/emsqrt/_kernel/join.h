/* clang-format off */
/* A hash table over the build side's rows, probed with blocks of the other side's rows.
 *
 * Rows follow one another from the start of the memory, in build order. Once all are stored, the
 * index is built at the end of the memory: the end of each bucket's entries, then the entries
 * grouped by bucket, in build order within each. Nothing else needs memory, so it is known exactly
 * which rows fit while rows are added.
 *
 *     | row | row | ... ->  free  | u32 end of bucket 0, 1, ... | u64 entries of bucket 0, 1, ... |
 *     '--- rows_bytes ---'        '------- 4 * key_count -------'-------- 8 * key_count ----------'
 *
 * There are as many buckets as rows with a key, and no chains: a bucket is a slice of the entries.
 */
/* clang-format on */
#ifndef EMSQRT_JOIN_H
#define EMSQRT_JOIN_H

#include "join_rows.h"

enum em_join_flags {
    EM_JOIN_PAIRS = 1,      /* write every match */
    EM_JOIN_UNMATCHED = 2,  /* write probe rows without a match */
    EM_JOIN_MATCHED = 4,    /* write probe rows with a match, once and without the build row */
    EM_JOIN_MARK = 8,       /* remember which build rows matched */
    EM_JOIN_SWAPPED = 16,   /* the build rows are the left side */
    EM_JOIN_SEQUENCED = 32, /* left payloads begin with the row's number */
    EM_JOIN_RIGHT_SEQUENCED = 64,
    /* The build rows are the left side, and their offsets are their numbers. */
    EM_JOIN_OFFSET_NUMBERS = 128,
};

typedef struct {
    uint8_t *memory;
    size_t size;
    size_t rows_bytes, row_count; /* rows with an empty key are stored, and not indexed */
    size_t key_count;
    uint64_t *entries; /* 24 bits of hash, 40 bits of the row's offset */
    uint32_t *ends; /* end of each bucket's entries, which begin at the end of the bucket before */
    bool indexed;
    size_t drained; /* offset of the next row that em_join_drain() looks at */
    bool inside;    /* the next probe continues in the middle of a row: */
    bool matched;   /* whether that row has matched so far */
    uint32_t next;  /* the entry to compare next */
} em_join_table;

typedef struct {
    const uint8_t *block;
    size_t size, at, passed;
    unsigned flags;
    uint8_t *bits; /* one per probe row, or NULL: set by a match; EM_JOIN_MATCHED skips rows whose
                      bit is set */
    size_t first_bit;
} em_join_probe;

/* Store rows of a block from `*at` on while they fit; with `keys_only` without payloads, and
 * without rows whose key is empty. EM_WALK_FULL: the row at `*at` does not fit. */
enum em_walk em_join_add(em_join_table *table, const uint8_t *block, size_t size, size_t *at,
                         bool keys_only);

/* Build the index. */
void em_join_index(em_join_table *table);

/* Drop all rows but the first of each key; then rows can be added again. */
void em_join_distinct(em_join_table *table);

/* Continue with a block of probe rows. EM_WALK_FULL: call again with an empty `out`. */
enum em_walk em_join_probe_rows(em_join_table *table, em_join_probe *probe, em_join_output *out);

/* Write the build rows that matched, or those that did not, in build order, from where the last
 * call stopped. EM_WALK_FULL: call again. */
enum em_walk em_join_drain(em_join_table *table, bool matched, unsigned flags, em_join_output *out);

#endif
