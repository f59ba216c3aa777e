/* Rows of equal keys, which follow one another in a merged stream, made one. */
#ifndef EMSQRT_COMBINE_H
#define EMSQRT_COMBINE_H

#include "rows.h"
#include "states.h"

enum em_combine_fault { EM_COMBINE_OK, EM_COMBINE_DAMAGED, EM_COMBINE_NO_ROOM };

typedef struct {
    em_layout layout;
    uint8_t *kept; /* the row held back, when it is not in the caller's block */
    size_t kept_bytes;
    const uint8_t *held; /* the row whose key may come again, or NULL */
    uint8_t *record;     /* its states and those of its equals, when `mixed` */
    bool mixed;
    em_heap heap;
    enum em_combine_fault fault;
} em_combiner;

typedef struct {
    size_t consumed, written, rows;
} em_progress;

/* Lay the combiner out; false when the memory is too small for the layout. */
bool em_combiner_open(em_combiner *combiner, uint8_t *memory, size_t bytes);

/* Read whole sorted rows and write combined ones while they fit. One row is held back until a
 * greater key comes, or `last` says that none will. */
em_progress em_combiner_run(em_combiner *combiner, const uint8_t *rows, size_t bytes, bool last,
                            uint8_t *out, size_t out_bytes);

/* Return whether a whole row with its key lies at `row`. */
static inline bool em_row_is_whole(const uint8_t *row, size_t bytes) {
    return bytes >= EM_ROW_HEAD_BYTES && em_row_bytes(row) <= bytes &&
           em_row_bytes(row) >= EM_ROW_HEAD_BYTES &&
           em_row_key_bytes(row) <= em_row_bytes(row) - EM_ROW_HEAD_BYTES;
}

#endif
