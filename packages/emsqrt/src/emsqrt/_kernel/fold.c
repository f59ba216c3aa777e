#include "fold.h"

#define VALUES_MAX 512u

bool em_fold_open(em_fold *fold, uint8_t *memory, size_t bytes) {
    const size_t lost = (8 - (uintptr_t)memory % 8) % 8;
    const size_t record_bytes = em_align8(fold->layout.fixed_bytes);
    fold->room_bytes = VALUES_MAX * 17 + 512;
    if (bytes < lost + record_bytes + fold->room_bytes + 8192) {
        return false;
    }
    bytes = (bytes - lost) & ~(size_t)7;
    fold->room = memory + lost;
    fold->room_bytes = em_align8(fold->room_bytes);
    fold->record = fold->room + fold->room_bytes;
    const size_t left = bytes - fold->room_bytes - record_bytes;
    fold->heap = (em_heap){.memory = fold->record + record_bytes, .used = 8};
    fold->heap.limit = (left / 2) & ~(size_t)7;
    fold->prefix = fold->heap.memory + fold->heap.limit;
    fold->prefix_max = left - fold->heap.limit;
    fold->counting = true;
    for (uint32_t i = 0; i < fold->layout.count; i++) {
        const em_part *part = &fold->layout.parts[i];
        fold->counting &= part->column == EM_NO_COLUMN || part->op == EM_COUNT;
    }
    return true;
}

static void place_values(em_fold *fold) {
    fold->values.kind = fold->kinds[fold->keys.count - 1];
    fold->values.text_bytes = 0;
    em_arrays_place(&fold->values, 1, VALUES_MAX, fold->room);
    fold->value_count = 0;
}

/* Add the buffered values to the record. */
static void flush_values(em_fold *fold) {
    if (fold->value_count == 0) {
        return;
    }
    const em_column column = {.kind = fold->values.kind, .values = fold->values.values};
    const em_columns columns = {
        .row_count = fold->value_count, .column_count = 1, .columns = &column};
    uint8_t *records[VALUES_MAX];
    for (size_t i = 0; i < fold->value_count; i++) {
        records[i] = fold->record;
    }
    const em_row_batch batch = {
        .columns = &columns,
        .count = fold->value_count,
        .records = records,
        .one = true,
        .heap = &fold->heap,
    };
    if (!em_accumulate(&fold->layout, &batch)) {
        fold->fault = EM_COMBINE_DAMAGED;
    } else if (fold->heap.failed) {
        fold->fault = EM_COMBINE_NO_ROOM;
    }
    place_values(fold);
}

static void begin_group(em_fold *fold, const uint8_t *key, size_t prefix_bytes) {
    if (prefix_bytes > fold->prefix_max) {
        fold->fault = EM_COMBINE_NO_ROOM;
        return;
    }
    memcpy(fold->prefix, key, prefix_bytes);
    fold->prefix_bytes = prefix_bytes;
    memset(fold->record, 0, fold->layout.fixed_bytes);
    fold->heap.used = 8;
    fold->heap.failed = false;
    fold->before = 0;
    fold->open = true;
    for (size_t i = 0; i < fold->quantile_count; i++) {
        fold->quantiles[i].low_at = fold->quantiles[i].high_at = UINT64_MAX;
    }
    if (!em_is_text(fold->kinds[fold->keys.count - 1])) {
        place_values(fold);
    }
}

/* Write the group's row; false when it may not fit. */
static bool end_group(em_fold *fold, em_progress *done, uint8_t *out, size_t out_bytes) {
    flush_values(fold);
    const size_t bound = EM_ROW_HEAD_BYTES + fold->prefix_bytes +
                         em_pack_bound(&fold->layout, fold->record, &fold->heap);
    if (bound > out_bytes - done->written) {
        return false;
    }
    uint8_t *row = out + done->written;
    memcpy(row + EM_ROW_HEAD_BYTES, fold->prefix, fold->prefix_bytes);
    const uint8_t *end = em_pack(&fold->layout, fold->record, &fold->heap,
                                 row + EM_ROW_HEAD_BYTES + fold->prefix_bytes);
    em_store32(row, (uint32_t)(end - row));
    em_store32(row + 4, (uint32_t)fold->prefix_bytes);
    done->written += (size_t)(end - row);
    done->rows++;
    fold->open = false;
    return true;
}

/* The index of SQL's percentile_disc: the first value at which the fraction of the values is
 * reached. */
static uint64_t place_of(const em_quantile *quantile, uint64_t count) {
    const unsigned __int128 share = (unsigned __int128)count * quantile->numerator;
    const uint64_t values = (uint64_t)((share + quantile->denominator - 1) / quantile->denominator);
    return values > 0 ? values - 1 : 0;
}

/* The indices and the weight of SQL's percentile_cont, which interpolates between the values around
 * `(n - 1) * fraction`. */
static void locate_quantiles(em_fold *fold, uint64_t count) {
    for (size_t i = 0; i < fold->quantile_count && count > 0; i++) {
        em_quantile *quantile = &fold->quantiles[i];
        if (quantile->denominator > 0) {
            quantile->low_at = place_of(quantile, count);
            continue;
        }
        const double place = (double)(count - 1) * quantile->fraction;
        quantile->low_at = (uint64_t)place;
        quantile->weight = place - (double)quantile->low_at;
        quantile->high_at = quantile->low_at + (quantile->weight > 0);
    }
}

static double decoded(const em_fold *fold, const uint8_t *at) {
    uint8_t room[256];
    em_array array = {.kind = fold->kinds[fold->keys.count - 1]};
    em_arrays_place(&array, 1, 1, room);
    (void)em_key_decode(&fold->keys.parts[fold->keys.count - 1], at, &array, 0);
    const em_column column = {.kind = array.kind, .values = array.values};
    return em_value_as_double(&column, 0, fold->scale);
}

/* Store the value itself in a part that no other value fills. */
static void keep_value(em_fold *fold, em_part *part, const uint8_t *value) {
    em_array array = {.kind = fold->kinds[fold->keys.count - 1], .text_bytes = fold->text_bytes};
    uint8_t *room = fold->prefix + em_align8(fold->prefix_bytes);
    const size_t left = fold->prefix_max - em_align8(fold->prefix_bytes);
    if (em_align8(fold->prefix_bytes) > fold->prefix_max ||
        em_arrays_bound(&array, 1, 1, fold->text_bytes) > left) {
        fold->fault = EM_COMBINE_NO_ROOM;
        return;
    }
    em_arrays_place(&array, 1, 1, room);
    (void)em_key_decode(&fold->keys.parts[fold->keys.count - 1], value, &array, 0);
    const em_column column = {.kind = array.kind, .values = array.values, .ends = array.ends};
    const em_columns columns = {.row_count = 1, .column_count = 1, .columns = &column};
    uint8_t *record = fold->record;
    const em_row_batch batch = {
        .columns = &columns, .count = 1, .records = &record, .one = true, .heap = &fold->heap};
    part->column = 0;
    if (!em_accumulate(&fold->layout, &batch)) {
        fold->fault = EM_COMBINE_DAMAGED;
    } else if (fold->heap.failed) {
        fold->fault = EM_COMBINE_NO_ROOM;
    }
    part->column = EM_NO_COLUMN;
}

static void pass_quantiles(em_fold *fold, const uint8_t *value, uint64_t count) {
    const uint64_t first = fold->before, stop = fold->before + count;
    for (size_t i = 0; i < fold->quantile_count; i++) {
        em_quantile *quantile = &fold->quantiles[i];
        const bool low = quantile->low_at >= first && quantile->low_at < stop;
        const bool high = quantile->high_at >= first && quantile->high_at < stop;
        if (!low && !high) {
            continue;
        }
        if (quantile->denominator > 0) {
            keep_value(fold, &fold->layout.parts[quantile->part], value);
            continue;
        }
        const double here = decoded(fold, value);
        if (low) {
            quantile->low = here;
        }
        if (high) {
            const double result =
                low ? here : quantile->low * (1.0 - quantile->weight) + here * quantile->weight;
            em_value_put(fold->record, &fold->layout.parts[quantile->part], quantile->part, 0,
                         (const uint8_t *)&result, NULL, 0, &fold->heap);
        }
    }
    fold->before = stop;
}

static void count_value(em_fold *fold) {
    for (uint32_t i = 0; i < fold->layout.count; i++) {
        const em_part *part = &fold->layout.parts[i];
        if (part->column != EM_NO_COLUMN) {
            uint64_t count;
            memcpy(&count, fold->record + part->at, 8);
            count++;
            memcpy(fold->record + part->at, &count, 8);
        }
    }
}

static void add_value(em_fold *fold, const uint8_t *value, uint64_t count) {
    if (*value != EM_VALUE) {
        locate_quantiles(fold, count);
        return;
    }
    pass_quantiles(fold, value, count);
    if (fold->counting) {
        count_value(fold);
        return;
    }
    (void)em_key_decode(&fold->keys.parts[fold->keys.count - 1], value, &fold->values,
                        fold->value_count);
    if (++fold->value_count == VALUES_MAX) {
        flush_values(fold);
    }
}

/* Return the bytes of a row's key without the value's column; SIZE_MAX when the key is malformed.
 */
static size_t prefix_of(em_fold *fold, const uint8_t *row) {
    const uint8_t *key = em_row_key(row), *end = em_row_payload(row), *at = key;
    size_t prefix = SIZE_MAX;
    for (size_t i = 0; i < fold->keys.count && at != NULL; i++) {
        prefix = (size_t)(at - key);
        at = em_key_skip(&fold->keys.parts[i], fold->kinds[i], at, end, &fold->text_bytes);
    }
    return at == end ? prefix : SIZE_MAX;
}

em_progress em_fold_run(em_fold *fold, const uint8_t *rows, size_t bytes, bool last, uint8_t *out,
                        size_t out_bytes) {
    em_progress done = {0};
    fold->fault = EM_COMBINE_OK;
    while (done.consumed < bytes && fold->fault == EM_COMBINE_OK) {
        const uint8_t *row = rows + done.consumed;
        uint64_t count;
        const size_t prefix =
            em_row_is_whole(row, bytes - done.consumed) ? prefix_of(fold, row) : SIZE_MAX;
        if (prefix == SIZE_MAX ||
            em_get_varint(em_row_payload(row), row + em_row_bytes(row), &count) == NULL) {
            fold->fault = EM_COMBINE_DAMAGED;
            break;
        }
        const bool same = fold->open && prefix == fold->prefix_bytes &&
                          memcmp(em_row_key(row), fold->prefix, prefix) == 0;
        if (fold->open && !same && !end_group(fold, &done, out, out_bytes)) {
            break;
        }
        if (!same) {
            begin_group(fold, em_row_key(row), prefix);
        }
        if (fold->fault == EM_COMBINE_OK) {
            add_value(fold, em_row_key(row) + prefix, count);
        }
        done.consumed += em_row_bytes(row);
    }
    if (last && done.consumed == bytes && fold->open && fold->fault == EM_COMBINE_OK) {
        if (!end_group(fold, &done, out, out_bytes) && done.rows == 0) {
            fold->fault = EM_COMBINE_NO_ROOM;
        }
    }
    return done;
}
