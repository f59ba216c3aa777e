/* clang-format off */
/* A merge of sorted runs of rows: a loser tree (Knuth, TAOCP 5.4.1) over sources that the caller
 * refills.
 *
 * Nodes 1 to count - 1 are matches between two sources, the leaf of source s is node count + s, and
 * the parent of node n is n / 2. `losers[n]` is the source that lost the match at node n; the
 * winner of the last match, at node 1, has the next row. With five sources:
 *
 *                     1
 *              .------'------.
 *              2             3
 *          .---'---.     .---'---.
 *          4       s0    s1      s2
 *       .--'--.
 *       s3    s4
 *
 * Every source but the winner is in `losers` once. When the winner's row is taken, its next row
 * plays the matches from its leaf to the root: one comparison a level, because the loser at each of
 * these nodes is already the winner of the subtree on the other side.
 *
 * Stable by source: of equal keys, the lower source's row comes first. Each source caches its key's
 * bytes at the positions where keys differ (key_prefix.h); only ties read the rows.
 */
/* clang-format on */
#ifndef EMSQRT_MERGE_H
#define EMSQRT_MERGE_H

#include "key_prefix.h"
#include "rows.h"

enum em_source_state { EM_SOURCE_EMPTY, EM_SOURCE_LIVE, EM_SOURCE_ENDED };

typedef struct {
    uint64_t high;
    uint32_t low;
    uint32_t state;
    const uint8_t *row; /* the next row, when live */
    const uint8_t *end;
} em_source;

typedef struct {
    uint32_t count;
    uint32_t waiting; /* number of sources that were never filled; no row can win before it is 0 */
    uint32_t winner;
    bool broken; /* a row was malformed */
    em_positions positions;
    em_source *sources;
    uint32_t *losers;
} em_merger;

/* Why a merge stopped; any other value is the number of the source that is empty. */
enum { EM_MERGE_FULL = -1, EM_MERGE_DONE = -2, EM_MERGE_CORRUPT = -3 };

typedef struct {
    size_t bytes;
    size_t rows;
    int64_t stopped;
} em_merged;

/* Bytes of a merger's state, a multiple of 64. */
size_t em_merger_bytes(uint32_t sources);

/* Open a merger over `sources` empty sources; `state` is aligned to 8 and has em_merger_bytes().
 * Positions that leave out a byte where keys differ make the order wrong; with `count` 0 the merge
 * is only slower. */
void em_merger_open(em_merger *merger, uint8_t *state, uint32_t sources,
                    const em_positions *positions);

/* Set the next rows of an empty source, which must stay where they are until they are merged; no
 * bytes end the source. False when they do not start with a whole row. */
bool em_merger_refill(em_merger *merger, uint32_t source, const uint8_t *rows, size_t bytes);

/* Copy the next rows in order into `out` until it is full, a source is empty, `rows_max` rows are
 * written, or all sources have ended. With `ending`, write only the payloads, each followed by it.
 */
em_merged em_merger_run(em_merger *merger, uint8_t *out, size_t out_bytes, size_t rows_max,
                        const uint8_t *ending, size_t ending_bytes);

/* Return the next row, or NULL when a source must be refilled first or all have ended. */
const uint8_t *em_merger_head(const em_merger *merger);

/* Skip the next row; return why em_merger_run() would stop, EM_MERGE_FULL when rows are left. */
int64_t em_merger_skip(em_merger *merger);

#endif
