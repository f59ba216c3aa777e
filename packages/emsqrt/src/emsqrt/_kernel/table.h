/* A hash table of groups in memory that was given: normalised keys, and the states of their parts.
 *
 *     scratch (keys of a stretch of rows) | records and heap, growing up | free | buckets
 *
 * A bucket is u32 hash << 32 | offset of the record in units of eight bytes, 0 when empty. At most
 * half of the buckets are used, so that they have room to sort the groups where they lie.
 */
#ifndef EMSQRT_TABLE_H
#define EMSQRT_TABLE_H

#include "accumulate.h"
#include "key_prefix.h"
#include "keys.h"
#include "rows.h"

enum em_table_fault {
    EM_TABLE_OK,
    EM_TABLE_TOO_LARGE, /* one row does not fit the empty table */
    EM_TABLE_DAMAGED,   /* packed states or Arrow states that nobody wrote */
};

typedef struct {
    em_layout layout;
    em_key_spec keys;
    em_column *shifted; /* room for the columns up to the last key's, where a heading is added */
    em_heap heap;
    uint8_t *end; /* of the memory */
    uint64_t *buckets;
    size_t bucket_count, groups;
    uint8_t *scratch;
    size_t scratch_bytes;
    uint64_t rows;  /* taken since the table was made: what first and last go by */
    size_t limit;   /* of a row's key, and of its texts; 0 is none */
    size_t refused; /* by the last call: bytes of a key, or of texts, over the limit */
    em_key_differences differences; /* of all keys since the table was opened */
    bool sorted;
    enum em_table_fault fault;
} em_table;

#define EM_TABLE_BYTES_MIN ((size_t)64 << 10)

/* Lay the table out; false when there are less than EM_TABLE_BYTES_MIN. Keys of rows that are long
 * find room where `for_long` is set. */
bool em_table_open(em_table *table, uint8_t *memory, size_t bytes, bool for_long);

/* Forget the groups. */
void em_table_reset(em_table *table);

/* Add rows from `start` on and return how many were taken; fewer than there are: it is full, or
 * `fault` says what is wrong. With `heading`, the last key column counts as null. */
size_t em_table_add(em_table *table, const em_columns *columns, size_t start, bool heading);

/* Merge whole rows of packed states and return how many bytes were taken. */
size_t em_table_add_rows(em_table *table, const uint8_t *rows, size_t bytes);

/* Order the groups by key; after that they can only be drained, until reset. */
void em_table_sort(em_table *table);

/* Write sorted groups from number `first` on as rows, as many as fit; returns how many. */
size_t em_table_drain(em_table *table, size_t first, uint8_t *out, size_t out_bytes,
                      size_t *written);

/* The most bytes that the row of a sorted group takes. */
size_t em_table_row_bound(const em_table *table, size_t group);

/* Order `count` entries (offset in the low half) by the keys of their records; see table_sort.c. */
void em_order_groups(const em_table *table, uint64_t *entries, uint64_t *scratch, size_t count);

static inline uint8_t *em_table_record(const em_table *table, uint64_t entry) {
    return em_heap_at(&table->heap, (uint32_t)entry);
}

static inline const uint8_t *em_record_key(const em_table *table, const uint8_t *record) {
    return record + table->layout.fixed_bytes;
}

#endif
