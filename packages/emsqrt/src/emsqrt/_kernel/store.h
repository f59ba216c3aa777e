/* clang-format off */
/* The row store: collect rows in the caller's memory, sort them, and copy them out.
 *
 * Rows are stored from the start of the memory. From its end, two areas of 16 bytes per row are
 * reserved: the entries to sort, and the scratch that the sort needs, so that `used + 2 * 16 * rows
 * <= bytes` always holds and a sort never runs out of memory.
 *
 *     memory                                                                  memory + bytes
 *     | row 0 | row 1 | ... ->        free        | scratch | <- ... | entry 1 | entry 0 |
 *     '------- used ---------'                    '-- 16 * rows --'---- 16 * rows -------'
 *
 * An entry has its row's offset and key prefix; the rows themselves never move while they are
 * sorted.
 */
/* clang-format on */
#ifndef EMSQRT_STORE_H
#define EMSQRT_STORE_H

#include "columns.h"
#include "keys.h"
#include "order.h"
#include "pack.h"
#include "rows.h"

typedef struct {
    uint8_t *memory;
    size_t bytes;   /* of the memory */
    size_t used;    /* by rows */
    size_t payload; /* bytes of all payloads */
    size_t rows;
    size_t row_bytes_max; /* of all rows since em_store_open() */
    unsigned shift;       /* rows start at multiples of 1 << shift */
    em_entry *order;      /* once sorted, `rows` entries; NULL before */
    bool bounded; /* rows whose key is not less than that of the row at `bound` are dropped */
    size_t bound;
    em_key_differences differences; /* of all keys since em_store_open() */
} em_store;

/* The result of draining or writing rows. */
typedef struct {
    size_t bytes;
    size_t rows;
} em_drained;

void em_store_open(em_store *store, uint8_t *memory, size_t bytes);

/* Drop all rows, but remember where their keys differ (`differences`). */
void em_store_reset(em_store *store);

/* Bytes of one row as em_store_add() would write it. */
size_t em_store_row_bytes(const em_columns *columns, const em_key_spec *spec,
                          const em_payload *payload, size_t row, bool sequenced);

/* Add rows from `start` on until the memory is full, and return how many were added. With
 * `sequence`, each key ends in that number, which is incremented. Must not be called once sorted.
 */
size_t em_store_add(em_store *store, const em_columns *columns, const em_key_spec *spec,
                    const em_payload *payload, size_t start, uint64_t *sequence);

/* Add whole rows of a block, and return the bytes consumed; SIZE_MAX when the block is malformed.
 */
size_t em_store_add_rows(em_store *store, const uint8_t *block, size_t bytes);

/* Sort the rows by key; the sort is stable. */
void em_store_sort(em_store *store);

/* Copy sorted rows [start, stop) into `out` while whole rows fit. */
em_drained em_store_drain(const em_store *store, size_t start, size_t stop, uint8_t *out,
                          size_t out_bytes);

/* As em_store_drain(), but copy only the payloads, each followed by `ending`. */
em_drained em_store_drain_lines(const em_store *store, size_t start, size_t stop, uint8_t *out,
                                size_t out_bytes, const uint8_t *ending, size_t ending_bytes);

/* Return the sorted row at `position`. */
const uint8_t *em_store_row(const em_store *store, size_t position);

/* Keep the first `count` sorted rows, drop the others, and accept rows again. With `bounding`,
 * later rows that would sort after these `count` are dropped when they are added. */
void em_store_keep(em_store *store, size_t count, bool bounding);

/* Copy the payloads of a block of rows, each followed by `ending`, while they fit; `consumed`
 * receives the bytes of the block that were read, SIZE_MAX when it is malformed. */
em_drained em_write_lines(const uint8_t *block, size_t bytes, uint8_t *out, size_t out_bytes,
                          const uint8_t *ending, size_t ending_bytes, size_t *consumed);

/* Whether a whole, well-formed row starts at `at`. */
static inline bool em_row_is_whole(const uint8_t *at, size_t bytes) {
    return bytes >= EM_ROW_HEAD_BYTES && em_row_bytes(at) >= EM_ROW_HEAD_BYTES &&
           em_row_bytes(at) <= bytes &&
           em_row_key_bytes(at) <= em_row_bytes(at) - EM_ROW_HEAD_BYTES;
}

#endif
