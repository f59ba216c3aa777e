/* A hash table of groups in the caller's memory: normalised keys, and the states of their parts.
 *
 *     scratch (keys of a batch of rows) | records and heap, growing up | free | buckets
 *
 * A bucket is u32 hash << 32 | offset of the record in units of eight bytes, 0 when empty. At most
 * half of the buckets are used, so that the groups can be sorted in place: their entries need one
 * half, the scratch of the sort the other.
 */
#ifndef EMSQRT_TABLE_H
#define EMSQRT_TABLE_H

#include "accumulate.h"
#include "key_prefix.h"
#include "keys.h"
#include "rows.h"

enum em_table_fault {
    EM_TABLE_OK,
    EM_TABLE_TOO_LARGE, /* one row does not fit an empty table */
    EM_TABLE_DAMAGED,   /* packed states or state columns are malformed */
};

typedef struct {
    em_layout layout;
    em_key_spec keys;
    em_column
        *sliced; /* copies of the key columns, used when `heading` is set: see em_table_add() */
    em_heap heap;
    uint8_t *end; /* end of the memory */
    uint64_t *buckets;
    size_t bucket_count, groups;
    uint8_t *scratch;
    size_t scratch_bytes;
    uint64_t rows;  /* rows added since the table was opened: the row numbers of first and last */
    size_t limit;   /* maximum bytes of a row's key, and of its texts; 0 is no limit */
    size_t refused; /* bytes of the key or the texts, over the limit, that the last call refused;
                       else 0 */
    em_key_differences differences; /* of all keys since the table was opened */
    bool sorted;
    enum em_table_fault fault;
} em_table;

#define EM_TABLE_BYTES_MIN ((size_t)64 << 10)

/* Divide `memory` into the table's areas; false when there are less than EM_TABLE_BYTES_MIN. With
 * `for_long` the scratch is a quarter of the memory, so that long keys fit. */
bool em_table_open(em_table *table, uint8_t *memory, size_t bytes, bool for_long);

/* Drop all groups. */
void em_table_reset(em_table *table);

/* Add rows from `start` on and return how many were added. When rows are left, the table is full,
 * `refused` is set, or `fault` has the reason. With `heading`, the last key column counts as null.
 */
size_t em_table_add(em_table *table, const em_columns *columns, size_t start, bool heading);

/* Rows whose only key is given as a number for each row. */
typedef struct {
    const em_columns *keys; /* column 0 has the distinct keys; they need not differ */
    const int32_t *codes;   /* for each row, the row of `keys` with its key */
    uint32_t *places;       /* for each row of `keys`, its record in units of eight bytes; 0 at first */
} em_coded_rows;

/* As em_table_add(), but column 0 of `columns` is not read. A key is encoded and looked up once. */
size_t em_table_add_coded(em_table *table, const em_coded_rows *rows, const em_columns *columns,
                          size_t start);

/* Merge whole rows of packed states and return the bytes consumed. */
size_t em_table_add_rows(em_table *table, const uint8_t *rows, size_t bytes);

/* Sort the groups by key; after that they can only be drained, until reset. */
void em_table_sort(em_table *table);

/* Write sorted groups as rows, from number `first` on while they fit; return how many. */
size_t em_table_drain(em_table *table, size_t first, uint8_t *out, size_t out_bytes,
                      size_t *written);

/* An upper bound of the bytes of a sorted group's row. */
size_t em_table_row_bound(const em_table *table, size_t group);

/* Sort `count` entries (record offset in the low half) by the keys of their records; see
 * table_sort.c. */
void em_order_groups(const em_table *table, uint64_t *entries, uint64_t *scratch, size_t count);

static inline uint8_t *em_table_record(const em_table *table, uint64_t entry) {
    return em_heap_at(&table->heap, (uint32_t)entry);
}

static inline const uint8_t *em_record_key(const em_table *table, const uint8_t *record) {
    return record + table->layout.fixed_bytes;
}

#endif
