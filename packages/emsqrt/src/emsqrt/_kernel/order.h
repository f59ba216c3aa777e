/* Putting rows in order of their keys without moving them: stable, by radix. */
#ifndef EMSQRT_ORDER_H
#define EMSQRT_ORDER_H

#include "key_prefix.h"

typedef struct {
    uint64_t high; /* the key's bytes at the chosen positions, see key_prefix.h */
    uint32_t low;
    uint32_t at; /* the row's offset, in units of the store's alignment */
} em_entry;

/* Rows in memory, `at << shift` bytes behind `rows`. */
typedef struct {
    const uint8_t *rows;
    unsigned shift;
} em_row_place;

/* Order `count` entries, which hold `at` in the order of arrival. `scratch` has
 * room for as many. `positions` are those where keys differ at all. Returns the
 * one of both that holds the result. */
em_entry *em_order_rows(em_row_place place, em_entry *entries, em_entry *scratch, size_t count,
                        const em_positions *positions);

#endif
