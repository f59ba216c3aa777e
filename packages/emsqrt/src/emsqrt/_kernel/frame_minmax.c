/* The minimum or maximum of a frame: a queue of the rows that may still become it, which is the
 * "monotonic wedge" of D. Lemire, "Streaming maximum-minimum filter using no more than three
 * comparisons per element" (2006). Each row enters and leaves the queue at most once, so that all
 * frames together cost time linear in the rows, however wide they are.
 *
 *     rows of the frame      5  3  8  6  7  2       (maximum)
 *     queue                        8     7  2       5 and 3 can never be the maximum again
 */
#include "fill.h"
#include "window.h"

typedef struct {
    em_i128 order;
    const uint8_t *text;
    size_t bytes;
} one_value;

static one_value value_of(const em_frame_minmax *best, const em_column *column, size_t row) {
    if (!best->text) {
        return (one_value){em_value_order(column, row), NULL, 0};
    }
    const int32_t *ends = column->ends + column->offset + row;
    return (one_value){0, column->values + ends[0], (size_t)(ends[1] - ends[0])};
}

static em_candidate *candidate(const em_frame_minmax *best, size_t index) {
    return &best->queue[(best->first + index) % best->room];
}

static size_t text_start(const em_candidate *held) {
    return (size_t)(held->order >> 32);
}

static size_t text_bytes(const em_candidate *held) {
    return (size_t)(held->order & UINT32_MAX);
}

/* Whether the value is better than a candidate; an equal one is not. */
static bool is_better(const em_frame_minmax *best, const one_value *value,
                      const em_candidate *held) {
    if (!best->text) {
        return best->greatest ? value->order > held->order : value->order < held->order;
    }
    const size_t bytes = text_bytes(held);
    const int order = memcmp(value->text, best->bytes + text_start(held),
                             value->bytes < bytes ? value->bytes : bytes);
    const int by_length = value->bytes < bytes ? -1 : value->bytes > bytes;
    const int whole = order != 0 ? order : by_length;
    return best->greatest ? whole > 0 : whole < 0;
}

static void drop_last(em_frame_minmax *best) {
    best->count--;
    if (best->text) {
        best->tail -= text_bytes(candidate(best, best->count));
    }
}

static void drop_first(em_frame_minmax *best) {
    if (best->text) {
        best->head += text_bytes(candidate(best, 0));
    }
    best->first = (best->first + 1) % best->room;
    best->count--;
}

static void clear(em_frame_minmax *best) {
    best->count = 0;
    best->head = best->tail = 0;
}

/* Move the texts to the front when the next one does not fit after them; false when it does not fit
 * at all. */
static bool make_text_room(em_frame_minmax *best, size_t bytes) {
    if (best->tail + bytes <= best->bytes_room) {
        return true;
    }
    memmove(best->bytes, best->bytes + best->head, best->tail - best->head);
    for (size_t i = 0; i < best->count; i++) {
        candidate(best, i)->order -= (em_i128)best->head << 32;
    }
    best->tail -= best->head;
    best->head = 0;
    return best->tail + bytes <= best->bytes_room;
}

static bool push(em_frame_minmax *best, const one_value *value, int64_t row) {
    if (best->count == best->room || (best->text && !make_text_room(best, value->bytes))) {
        return false;
    }
    em_candidate *held = candidate(best, best->count++);
    *held = (em_candidate){value->order, row};
    if (best->text) {
        held->order = (em_i128)best->tail << 32 | (em_i128)value->bytes;
        memcpy(best->bytes + best->tail, value->text, value->bytes);
        best->tail += value->bytes;
    }
    return true;
}

/* Add a row to the queue; false when it is full. */
static bool add_row(em_frame_minmax *best, const em_column *column, size_t place, int64_t row) {
    if (!em_is_valid(column, place)) {
        return true;
    }
    const one_value value = value_of(best, column, place);
    if (!best->sliding) { /* rows leave all at once, so only the best so far matters */
        if (best->count > 0 && !is_better(best, &value, candidate(best, 0))) {
            return true;
        }
        clear(best);
    }
    while (best->count > 0 && is_better(best, &value, candidate(best, best->count - 1))) {
        drop_last(best);
    }
    return push(best, &value, row);
}

enum em_window_stop em_frame_minmax_run(em_frame_minmax *best, em_frames *frames,
                                        const em_chunk *high, int64_t *out) {
    for (; frames->row < frames->rows; frames->row++) {
        const size_t row = frames->row;
        const int64_t low = frames->low[row];
        if (low >= best->high) {
            clear(best);
            best->high = low;
        }
        while (best->count > 0 && candidate(best, 0)->row < low) {
            drop_first(best);
        }
        for (; best->high < frames->high[row]; best->high++) {
            const int64_t place = best->high - high->first;
            if (place < 0 || (size_t)place >= high->rows) {
                return EM_WINDOW_HIGH;
            }
            if (!add_row(best, &high->column, (size_t)place, best->high)) {
                return EM_WINDOW_FULL;
            }
        }
        out[row] = best->count > 0 ? candidate(best, 0)->row : -1;
    }
    return EM_WINDOW_DONE;
}
