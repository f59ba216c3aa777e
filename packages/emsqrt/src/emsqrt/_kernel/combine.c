/* Most rows have a unique key and are copied unchanged; the states of rows with equal keys are
 * merged in a record, as in the table. */
#include "combine.h"

bool em_combiner_open(em_combiner *combiner, uint8_t *memory, size_t bytes) {
    const size_t lost = (8 - (uintptr_t)memory % 8) % 8;
    const size_t record_bytes = em_align8(combiner->layout.fixed_bytes);
    if (bytes < lost + 4 * record_bytes + 256) {
        return false;
    }
    bytes = (bytes - lost) & ~(size_t)7;
    combiner->kept = memory + lost;
    combiner->kept_bytes = (bytes / 4) & ~(size_t)7;
    combiner->record = combiner->kept + combiner->kept_bytes;
    combiner->heap = (em_heap){
        .memory = combiner->record + record_bytes,
        .used = 8,
        .limit = bytes - combiner->kept_bytes - record_bytes,
    };
    combiner->held = NULL;
    combiner->mixed = false;
    return true;
}

static bool merge_packed(em_combiner *combiner, const uint8_t *row) {
    const uint8_t *end = row + em_row_bytes(row);
    if (em_merge_packed(&combiner->layout, combiner->record, &combiner->heap, em_row_payload(row),
                        end) != NULL) {
        return true;
    }
    combiner->fault = combiner->heap.failed ? EM_COMBINE_NO_ROOM : EM_COMBINE_DAMAGED;
    return false;
}

static bool mix(em_combiner *combiner, const uint8_t *row) {
    if (!combiner->mixed) {
        combiner->heap.used = 8;
        combiner->heap.failed = false;
        memset(combiner->record, 0, combiner->layout.fixed_bytes);
        combiner->mixed = true;
        if (!merge_packed(combiner, combiner->held)) {
            return false;
        }
    }
    return merge_packed(combiner, row);
}

/* Write the held row; 0 when it may not fit. */
static size_t write_held(em_combiner *combiner, uint8_t *out, size_t out_bytes) {
    const uint8_t *row = combiner->held;
    size_t row_bytes = em_row_bytes(row);
    if (!combiner->mixed) {
        if (row_bytes > out_bytes) {
            return 0;
        }
        memcpy(out, row, row_bytes);
        combiner->held = NULL;
        return row_bytes;
    }
    const uint32_t key_bytes = em_row_key_bytes(row);
    if (EM_ROW_HEAD_BYTES + key_bytes +
            em_pack_bound(&combiner->layout, combiner->record, &combiner->heap) >
        out_bytes) {
        return 0;
    }
    memcpy(out + EM_ROW_HEAD_BYTES, em_row_key(row), key_bytes);
    const uint8_t *end = em_pack(&combiner->layout, combiner->record, &combiner->heap,
                                 out + EM_ROW_HEAD_BYTES + key_bytes);
    row_bytes = (size_t)(end - out);
    em_store32(out, (uint32_t)row_bytes);
    em_store32(out + 4, key_bytes);
    combiner->held = NULL;
    combiner->mixed = false;
    return row_bytes;
}

/* Copy the held row out of the caller's block, which may change before the next call. */
static void copy_held(em_combiner *combiner) {
    const uint8_t *row = combiner->held;
    if (row == NULL || row == combiner->kept) {
        return;
    }
    const size_t bytes = em_row_bytes(row);
    if (bytes > combiner->kept_bytes) {
        combiner->fault = EM_COMBINE_NO_ROOM;
        return;
    }
    memcpy(combiner->kept, row, bytes);
    combiner->held = combiner->kept;
}

em_progress em_combiner_run(em_combiner *combiner, const uint8_t *rows, size_t bytes, bool last,
                            uint8_t *out, size_t out_bytes) {
    em_progress done = {0};
    combiner->fault = EM_COMBINE_OK;
    while (done.consumed < bytes && combiner->fault == EM_COMBINE_OK) {
        const uint8_t *row = rows + done.consumed;
        if (!em_row_is_whole(row, bytes - done.consumed)) {
            combiner->fault = EM_COMBINE_DAMAGED;
            break;
        }
        if (combiner->held != NULL && em_compare_keys(combiner->held, row) == 0) {
            if (!mix(combiner, row)) {
                break;
            }
        } else {
            if (combiner->held != NULL) {
                const size_t size =
                    write_held(combiner, out + done.written, out_bytes - done.written);
                if (size == 0) {
                    break;
                }
                done.written += size;
                done.rows++;
            }
            combiner->held = row;
        }
        done.consumed += em_row_bytes(row);
    }
    if (last && done.consumed == bytes && combiner->held != NULL &&
        combiner->fault == EM_COMBINE_OK) {
        const size_t size = write_held(combiner, out + done.written, out_bytes - done.written);
        done.written += size;
        done.rows += size > 0;
        if (done.rows == 0) {
            combiner->fault = EM_COMBINE_NO_ROOM;
        }
    }
    if (combiner->fault == EM_COMBINE_OK) {
        copy_held(combiner);
    }
    return done;
}
