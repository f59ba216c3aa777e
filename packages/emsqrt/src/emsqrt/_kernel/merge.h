/* Merging sorted blocks of rows: a loser tree (Knuth, TAOCP 5.4.1) over sources
 * that are refilled.
 *
 * Stable by source: of equal keys, the lower source's row comes first. Each
 * source caches the bytes of its key that can decide (key_prefix.h); only ties look
 * at the rows.
 */
#ifndef EMSQRT_MERGE_H
#define EMSQRT_MERGE_H

#include "key_prefix.h"
#include "rows.h"

enum em_source_state { EM_SOURCE_EMPTY, EM_SOURCE_LIVE, EM_SOURCE_ENDED };

typedef struct {
    uint64_t high;
    uint32_t low;
    uint32_t state;
    const uint8_t *row; /* the next one, when live */
    const uint8_t *end;
} em_source;

typedef struct {
    uint32_t count;
    uint32_t waiting; /* sources that were never filled */
    uint32_t winner;
    bool broken; /* a row made no sense */
    em_positions positions;
    em_source *sources;
    uint32_t *losers;
} em_merger;

/* Why a merge stopped, where it is not the number of an exhausted source. */
enum { EM_MERGE_FULL = -1, EM_MERGE_DONE = -2, EM_MERGE_CORRUPT = -3 };

typedef struct {
    size_t bytes;
    size_t rows;
    int64_t stopped;
} em_merged;

/* Bytes of a merger's own state, a multiple of 64. */
size_t em_merger_bytes(uint32_t sources);

/* Open over `sources` empty sources; `state` is aligned to 8 and has
 * em_merger_bytes(). With positions that do not hold for all keys the order is
 * wrong, with `count` 0 only slower. */
void em_merger_open(em_merger *merger, uint8_t *state, uint32_t sources,
                    const em_positions *positions);

/* Give an empty source its next rows, which stay where they are; none means
 * that it has ended. False when they are no whole row. */
bool em_merger_refill(em_merger *merger, uint32_t source, const uint8_t *rows, size_t bytes);

/* Copy the next rows in order into `out` until it is full, a source has run
 * empty, `rows_max` rows were written, or all is done. With `ending` payloads
 * alone are written, each followed by it. */
em_merged em_merger_run(em_merger *merger, uint8_t *out, size_t out_bytes, size_t rows_max,
                        const uint8_t *ending, size_t ending_bytes);

/* The next row, or NULL when a source must be refilled first or all is done. */
const uint8_t *em_merger_head(const em_merger *merger);

/* Pass over the next row; returns as em_merger_run() stops, EM_MERGE_FULL when
 * rows are left. */
int64_t em_merger_skip(em_merger *merger);

#endif
