/* The row store: rows gathered in given memory, put in order, and handed out.
 *
 * Rows lie from the start of the memory. Its end is kept for 16-byte entries
 * and as many again for scratch, so that `used + 2 * 16 * rows <= bytes` holds
 * whenever a row is taken.
 */
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
    size_t payload; /* bytes of the rows' payloads */
    size_t rows;
    size_t row_bytes_max; /* of all rows since em_store_open() */
    unsigned shift;       /* rows start at multiples of 1 << shift */
    em_entry *order;      /* once sorted, `rows` entries; NULL before */
    bool bounded;         /* rows whose key is not below that of the row at `bound` are
                             dropped */
    size_t bound;
    em_key_differences differences; /* of all keys since em_store_open() */
} em_store;

/* What draining or writing a stretch of rows did. */
typedef struct {
    size_t bytes;
    size_t rows;
} em_drained;

void em_store_open(em_store *store, uint8_t *memory, size_t bytes);

/* Forget the rows; what was learnt of their keys is kept. */
void em_store_reset(em_store *store);

/* Bytes of one row as add would write it. */
size_t em_store_row_bytes(const em_columns *columns, const em_key_spec *spec,
                          const em_payload *payload, size_t row, bool sequenced);

/* Add rows from `start` on until memory is full, and return how many were
 * taken. With `sequence`, each key ends in its number, which is counted up. Not
 * to be called once sorted. */
size_t em_store_add(em_store *store, const em_columns *columns, const em_key_spec *spec,
                    const em_payload *payload, size_t start, uint64_t *sequence);

/* Add whole rows from a block, and return the bytes taken; SIZE_MAX when the
 * block is malformed. */
size_t em_store_add_rows(em_store *store, const uint8_t *block, size_t bytes);

/* Put the rows in the order of their keys, equal keys as they came. */
void em_store_sort(em_store *store);

/* Copy sorted rows [start, stop) into `out` while whole rows fit. */
em_drained em_store_drain(const em_store *store, size_t start, size_t stop, uint8_t *out,
                          size_t out_bytes);

/* The same with the payloads alone, each followed by `ending`. */
em_drained em_store_drain_lines(const em_store *store, size_t start, size_t stop, uint8_t *out,
                                size_t out_bytes, const uint8_t *ending, size_t ending_bytes);

/* The sorted row at `position`. */
const uint8_t *em_store_row(const em_store *store, size_t position);

/* Keep the first `count` sorted rows, forget the others, take rows again. With
 * `bounding`, rows that come now and would not be among the first `count` are
 * dropped as they come. */
void em_store_keep(em_store *store, size_t count, bool bounding);

/* Copy payloads of a block of rows, each followed by `ending`, while they fit;
 * `taken` receives the block's bytes done, SIZE_MAX when it is malformed. */
em_drained em_write_lines(const uint8_t *block, size_t bytes, uint8_t *out, size_t out_bytes,
                          const uint8_t *ending, size_t ending_bytes, size_t *consumed);

/* Whether a whole row that makes sense starts at `at`. */
static inline bool em_row_is_whole(const uint8_t *at, size_t bytes) {
    return bytes >= EM_ROW_HEAD_BYTES && em_row_bytes(at) >= EM_ROW_HEAD_BYTES &&
           em_row_bytes(at) <= bytes &&
           em_row_key_bytes(at) <= em_row_bytes(at) - EM_ROW_HEAD_BYTES;
}

#endif
