/* Sort rows by their keys without moving them: a stable radix sort. */
#ifndef EMSQRT_ORDER_H
#define EMSQRT_ORDER_H

#include "key_prefix.h"

typedef struct {
    uint64_t high; /* the prefix's first eight bytes, see key_prefix.h */
    uint32_t low;
    uint32_t at; /* the row's offset, in units of the store's alignment */
} em_entry;

_Static_assert(sizeof(em_entry) == 16, "RowStore reserves 32 bytes per row: entry and scratch");
_Static_assert(EM_PREFIX_BYTES == sizeof(uint64_t) + sizeof(uint32_t), "high and low");

/* Rows in memory: a row is at `rows + (at << shift)`. */
typedef struct {
    const uint8_t *rows;
    unsigned shift;
} em_row_place;

/* Sort `count` entries by the keys of their rows. The entries have `at` set and are in the order in
 * which the rows were added, which equal keys keep. `scratch` has room for as many entries.
 * `positions` are those where the keys differ at all. Return the one of the two arrays that holds
 * the result. */
em_entry *em_order_rows(em_row_place place, em_entry *entries, em_entry *scratch, size_t count,
                        const em_positions *positions);

#endif
