/* Combine rows with equal keys, which are adjacent in a merged stream, into one row. */
#ifndef EMSQRT_COMBINE_H
#define EMSQRT_COMBINE_H

#include "rows.h"
#include "states.h"

enum em_combine_fault { EM_COMBINE_OK, EM_COMBINE_DAMAGED, EM_COMBINE_NO_ROOM };

typedef struct {
    em_layout layout;
    uint8_t *kept; /* a copy of the held row, when it is not in the caller's block */
    size_t kept_bytes;
    const uint8_t *held; /* the row whose key the next row may repeat, or NULL */
    uint8_t *record;     /* the combined states of `held` and the rows with its key, when `mixed` */
    bool mixed;
    em_heap heap;
    enum em_combine_fault fault;
} em_combiner;

typedef struct {
    size_t consumed, written, rows;
} em_progress;

/* Divide `memory` among the combiner's buffers; false when it is too small for the layout. */
bool em_combiner_open(em_combiner *combiner, uint8_t *memory, size_t bytes);

/* Read whole sorted rows and write combined ones while they fit. The last row is held back until a
 * row with a greater key arrives, or `last` says that none will. */
em_progress em_combiner_run(em_combiner *combiner, const uint8_t *rows, size_t bytes, bool last,
                            uint8_t *out, size_t out_bytes);

/* Return whether a whole row, with a key inside it, starts at `row`. */
static inline bool em_row_is_whole(const uint8_t *row, size_t bytes) {
    return bytes >= EM_ROW_HEAD_BYTES && em_row_bytes(row) <= bytes &&
           em_row_bytes(row) >= EM_ROW_HEAD_BYTES &&
           em_row_key_bytes(row) <= em_row_bytes(row) - EM_ROW_HEAD_BYTES;
}

#endif
