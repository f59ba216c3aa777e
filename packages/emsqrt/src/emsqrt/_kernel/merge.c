#include "merge.h"

#include <assert.h>

#include "store.h"

enum {
    NO_SOURCE = UINT32_MAX,
    AHEAD_BYTES = 512, /* how far ahead of a source's next row memory is prefetched */
};

size_t em_merger_bytes(uint32_t sources) {
    const size_t bytes = (sizeof(em_source) + sizeof(uint32_t)) * (size_t)sources;
    return (bytes + 63) / 64 * 64;
}

void em_merger_open(em_merger *merger, uint8_t *state, uint32_t sources,
                    const em_positions *positions) {
    assert((uintptr_t)state % 8 == 0);
    *merger = (em_merger){
        .count = sources,
        .waiting = sources,
        .winner = 0,
        .positions = *positions,
        .sources = (em_source *)(void *)state,
        .losers = (uint32_t *)(void *)(state + sizeof(em_source) * (size_t)sources),
    };
    memset(state, 0, em_merger_bytes(sources));
}

/* Order two sources with equal cached bytes: ended sources last, else by the whole key, then by
 * source. */
static bool breaks_tie(const em_merger *merger, uint32_t left, uint32_t right) {
    const em_source *one = &merger->sources[left], *other = &merger->sources[right];
    if (one->state == EM_SOURCE_ENDED || other->state == EM_SOURCE_ENDED) {
        return other->state == EM_SOURCE_ENDED;
    }
    if (!merger->positions.decides) {
        const int order = em_compare_keys(one->row, other->row);
        if (order != 0) {
            return order < 0;
        }
    }
    return left < right;
}

static inline bool comes_first(const em_merger *merger, uint32_t left, uint32_t right) {
    const em_source *one = &merger->sources[left], *other = &merger->sources[right];
    if (one->high != other->high) {
        return one->high < other->high;
    }
    if (one->low != other->low) {
        return one->low < other->low;
    }
    return breaks_tie(merger, left, right);
}

/* Replay the matches from a source's leaf to the root; the source was the winner, or its leaf is
 * new. The winner of a match is unpredictable, so winner and loser are exchanged without a branch;
 * only equal first bytes need one. */
static inline void replay(em_merger *merger, uint32_t source) {
    const em_source *const sources = merger->sources;
    uint32_t winner = source;
    uint64_t high = sources[source].high;
    for (uint32_t node = (source + merger->count) / 2; node > 0; node /= 2) {
        const uint32_t loser = merger->losers[node];
        const uint64_t other = sources[loser].high;
        bool first = other < high;
        if (__builtin_expect(other == high, 0)) {
            first = comes_first(merger, loser, winner);
        }
        const uint64_t changed = 0 - (uint64_t)first;
        const uint32_t change = (loser ^ winner) & (uint32_t)changed;
        high ^= (other ^ high) & changed;
        merger->losers[node] = loser ^ change;
        winner ^= change;
    }
    merger->winner = winner;
}

/* Build the tree: the first of two sources that reach a node waits there, the better of the two
 * moves up. */
static void build_tree(em_merger *merger) {
    for (uint32_t node = 0; node < merger->count; node++) {
        merger->losers[node] = NO_SOURCE;
    }
    for (uint32_t source = 0; source < merger->count; source++) {
        uint32_t winner = source, node = (source + merger->count) / 2;
        for (; node > 0; node /= 2) {
            const uint32_t loser = merger->losers[node];
            if (loser == NO_SOURCE) {
                merger->losers[node] = winner;
                break;
            }
            if (comes_first(merger, loser, winner)) {
                merger->losers[node] = winner;
                winner = loser;
            }
        }
        if (node == 0) {
            merger->winner = winner;
        }
    }
    assert(merger->winner < merger->count);
}

/* Cache the key prefix of the source's next row; false when there is no whole row. */
static inline bool load(const em_merger *merger, em_source *source) {
    if (!em_row_is_whole(source->row, (size_t)(source->end - source->row))) {
        return false;
    }
    em_positions_gather(&merger->positions, em_row_key(source->row), em_row_key_bytes(source->row),
                        &source->high, &source->low);
    return true;
}

bool em_merger_refill(em_merger *merger, uint32_t index, const uint8_t *rows, size_t bytes) {
    em_source *source = &merger->sources[index];
    assert(index < merger->count && source->state == EM_SOURCE_EMPTY);
    source->row = rows;
    source->end = rows + bytes;
    if (bytes == 0) {
        /* The greatest prefix loses against every other; breaks_tie() decides against a row that
         * has the same. */
        source->state = EM_SOURCE_ENDED;
        source->high = UINT64_MAX;
        source->low = UINT32_MAX;
    } else if (load(merger, source)) {
        source->state = EM_SOURCE_LIVE;
    } else {
        return false;
    }
    if (merger->waiting == 0) {
        replay(merger, index);
    } else if (--merger->waiting == 0) {
        build_tree(merger);
    }
    return true;
}

/* Return why the next row is not available, or EM_MERGE_FULL when it is. */
static int64_t stop_reason(const em_merger *merger) {
    if (merger->broken) {
        return EM_MERGE_CORRUPT;
    }
    if (merger->waiting > 0) {
        for (uint32_t i = 0; i < merger->count; i++) {
            if (merger->sources[i].state == EM_SOURCE_EMPTY) {
                return i;
            }
        }
    }
    if (merger->count == 0 || merger->sources[merger->winner].state == EM_SOURCE_ENDED) {
        return EM_MERGE_DONE;
    }
    return merger->sources[merger->winner].state == EM_SOURCE_EMPTY ? (int64_t)merger->winner
                                                                    : EM_MERGE_FULL;
}

/* Move past the winner's row and find the next winner. */
static inline int64_t advance(em_merger *merger) {
    em_source *source = &merger->sources[merger->winner];
    source->row += em_row_bytes(source->row);
    if (source->row == source->end) {
        /* The source stays the winner: its matches are replayed when it is refilled, and until then
         * nobody knows which row is next. */
        source->state = EM_SOURCE_EMPTY;
        return merger->winner;
    }
    if (!load(merger, source)) {
        merger->broken = true;
        return EM_MERGE_CORRUPT;
    }
    __builtin_prefetch(source->row + AHEAD_BYTES);
    replay(merger, merger->winner);
    return merger->sources[merger->winner].state == EM_SOURCE_ENDED ? EM_MERGE_DONE : EM_MERGE_FULL;
}

em_merged em_merger_run(em_merger *merger, uint8_t *out, size_t out_bytes, size_t rows_max,
                        const uint8_t *ending, size_t ending_bytes) {
    em_merged done = {0, 0, stop_reason(merger)};
    while (done.stopped == EM_MERGE_FULL && done.rows < rows_max) {
        const uint8_t *row = merger->sources[merger->winner].row;
        const uint8_t *from = ending == NULL ? row : em_row_payload(row);
        const size_t bytes = ending == NULL ? em_row_bytes(row) : em_row_payload_bytes(row);
        if (bytes + ending_bytes > out_bytes - done.bytes) {
            break;
        }
        memcpy(out + done.bytes, from, bytes);
        if (ending != NULL) {
            memcpy(out + done.bytes + bytes, ending, ending_bytes);
        }
        done.bytes += bytes + ending_bytes;
        done.rows++;
        done.stopped = advance(merger);
    }
    return done;
}

const uint8_t *em_merger_head(const em_merger *merger) {
    return stop_reason(merger) == EM_MERGE_FULL ? merger->sources[merger->winner].row : NULL;
}

int64_t em_merger_skip(em_merger *merger) {
    const int64_t stopped = stop_reason(merger);
    return stopped == EM_MERGE_FULL ? advance(merger) : stopped;
}
