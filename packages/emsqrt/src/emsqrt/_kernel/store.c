#include "store.h"

#include <assert.h>
#include <string.h>

#include "row_columns.h"

enum {
    AHEAD = 8,       /* sorted rows are scattered, so as many are prefetched while one is copied: */
    AHEAD_LINES = 3, /* the first lines of the cache of each */
    LINE_BYTES = 64,
};

static inline size_t aligned(const em_store *store, size_t bytes) {
    const size_t mask = ((size_t)1 << store->shift) - 1;
    return (bytes + mask) & ~mask;
}

static inline bool fits(const em_store *store, size_t row_bytes) {
    const size_t entries = (store->rows + 1) * 2 * sizeof(em_entry);
    return store->used + aligned(store, row_bytes) + entries <= store->bytes &&
           row_bytes <= UINT32_MAX && store->rows < UINT32_MAX;
}

/* Entries grow down from here, so that each is written when its row is, before the number of rows
 * is known. */
static inline em_entry *entries_end(const em_store *store) {
    return (em_entry *)(void *)(store->memory + store->bytes);
}

void em_store_open(em_store *store, uint8_t *memory, size_t bytes) {
    const size_t skew = (uintptr_t)(memory + bytes) % sizeof(em_entry);
    *store = (em_store){.memory = memory, .bytes = bytes > skew ? bytes - skew : 0};
    /* An entry has 32 bits for an offset, so above 4 GiB rows start at multiples of 2, 4, ... */
    while (store->bytes >> store->shift > UINT32_MAX) {
        store->shift++;
    }
}

void em_store_reset(em_store *store) {
    store->used = store->payload = store->rows = 0;
    store->order = NULL;
    store->bounded = false;
}

size_t em_store_row_bytes(const em_columns *columns, const em_key_spec *spec,
                          const em_payload *payload, size_t row, bool sequenced) {
    return EM_ROW_HEAD_BYTES + em_key_bytes(spec, columns, row) +
           (sequenced ? EM_SEQUENCE_BYTES : 0) + em_payload_bytes(payload, columns, row);
}

/* Count the row that was written after the last one, unless the bound drops it. */
static inline void append(em_store *store, const uint8_t *row, size_t row_bytes) {
    if (store->bounded && em_compare_keys(row, store->memory + store->bound) >= 0) {
        return;
    }
    em_key_differences_add(&store->differences, em_row_key(row), em_row_key_bytes(row));
    entries_end(store)[-1 - (ptrdiff_t)store->rows].at = (uint32_t)(store->used >> store->shift);
    store->used += aligned(store, row_bytes);
    store->payload += em_row_payload_bytes(row);
    store->rows++;
    if (row_bytes > store->row_bytes_max) {
        store->row_bytes_max = row_bytes;
    }
}

/* Write the head and key of a row with `payload_bytes` of payload after the last row, and return
 * the address of its payload. */
static uint8_t *put_head(em_store *store, const em_columns *columns, const em_key_spec *spec,
                         size_t row, size_t key_bytes, size_t payload_bytes, uint64_t *sequence) {
    uint8_t *at = store->memory + store->used;
    em_store32(at, (uint32_t)(EM_ROW_HEAD_BYTES + key_bytes + payload_bytes));
    em_store32(at + 4, (uint32_t)key_bytes);
    uint8_t *end = em_key_encode(spec, columns, row, at + EM_ROW_HEAD_BYTES);
    return sequence == NULL ? end : em_key_put_sequence(end, (*sequence)++);
}

/* Add at most one batch of rows with packed payloads; for stores without a bound. */
static size_t add_batch(em_store *store, const em_columns *columns, const em_key_spec *spec,
                        const em_payload *payload, size_t start, size_t fixed, uint64_t *sequence) {
    size_t bytes[EM_ROW_COLUMNS_MAX], row = 0, count = columns->row_count - start;
    uint8_t *out[EM_ROW_COLUMNS_MAX];
    count = count < EM_ROW_COLUMNS_MAX ? count : EM_ROW_COLUMNS_MAX;
    em_row_columns_sizes(payload, columns, start, count, bytes);
    for (; row < count; row++) {
        const size_t key_bytes = (fixed != 0 ? fixed : em_key_bytes(spec, columns, start + row)) +
                                 (sequence == NULL ? 0 : EM_SEQUENCE_BYTES);
        const size_t row_bytes = EM_ROW_HEAD_BYTES + key_bytes + bytes[row];
        if (!fits(store, row_bytes)) {
            break;
        }
        const uint8_t *at = store->memory + store->used;
        out[row] = put_head(store, columns, spec, start + row, key_bytes, bytes[row], sequence);
        append(store, at, row_bytes);
    }
    em_row_columns_write(payload, columns, start, row, bytes, out);
    return row;
}

size_t em_store_add(em_store *store, const em_columns *columns, const em_key_spec *spec,
                    const em_payload *payload, size_t start, uint64_t *sequence) {
    const size_t fixed = em_key_fixed_bytes(spec, columns);
    const size_t suffix = sequence == NULL ? 0 : EM_SEQUENCE_BYTES;
    size_t row = start;
    while (payload->shape == EM_PAYLOAD_COLUMNS && !store->bounded && row < columns->row_count) {
        const size_t added = add_batch(store, columns, spec, payload, row, fixed, sequence);
        if (added == 0) {
            return row - start;
        }
        row += added;
    }
    for (; row < columns->row_count; row++) {
        const size_t key_bytes = (fixed != 0 ? fixed : em_key_bytes(spec, columns, row)) + suffix;
        const size_t payload_bytes = em_payload_bytes(payload, columns, row);
        const size_t row_bytes = EM_ROW_HEAD_BYTES + key_bytes + payload_bytes;
        if (!fits(store, row_bytes)) {
            break;
        }
        const uint8_t *at = store->memory + store->used;
        em_payload_write(payload, columns, row,
                         put_head(store, columns, spec, row, key_bytes, payload_bytes, sequence));
        append(store, at, row_bytes);
    }
    return row - start;
}

size_t em_store_add_rows(em_store *store, const uint8_t *block, size_t bytes) {
    size_t consumed = 0;
    while (consumed < bytes) {
        const uint8_t *row = block + consumed;
        if (!em_row_is_whole(row, bytes - consumed)) {
            return SIZE_MAX;
        }
        const size_t row_bytes = em_row_bytes(row);
        if (!fits(store, row_bytes)) {
            break;
        }
        uint8_t *at = store->memory + store->used;
        memcpy(at, row, row_bytes);
        append(store, at, row_bytes);
        consumed += row_bytes;
    }
    return consumed;
}

/* Reverse entries in place. */
static void reverse(em_entry *entries, size_t count) {
    for (size_t i = 0; i < count / 2; i++) {
        const uint32_t at = entries[i].at;
        entries[i].at = entries[count - 1 - i].at;
        entries[count - 1 - i].at = at;
    }
}

void em_store_sort(em_store *store) {
    em_entry *entries = entries_end(store) - store->rows;
    assert((uint8_t *)(entries - store->rows) >= store->memory + store->used);
    reverse(entries, store->rows); /* into the order in which the rows were added */
    const em_positions positions = em_key_differences_positions(&store->differences);
    store->order = em_order_rows((em_row_place){store->memory, store->shift}, entries,
                                 entries - store->rows, store->rows, &positions);
}

const uint8_t *em_store_row(const em_store *store, size_t position) {
    return store->memory + ((size_t)store->order[position].at << store->shift);
}

static inline void fetch(const em_store *store, size_t position, size_t stop) {
    if (position < stop) {
        const uint8_t *row = em_store_row(store, position);
        for (unsigned line = 0; line < AHEAD_LINES; line++) {
            __builtin_prefetch(row + line * LINE_BYTES);
        }
    }
}

em_drained em_store_drain(const em_store *store, size_t start, size_t stop, uint8_t *out,
                          size_t out_bytes) {
    size_t filled = 0, position = start;
    for (; position < stop; position++) {
        fetch(store, position + AHEAD, stop);
        const uint8_t *row = em_store_row(store, position);
        const size_t bytes = em_row_bytes(row);
        if (bytes > out_bytes - filled) {
            break;
        }
        memcpy(out + filled, row, bytes);
        filled += bytes;
    }
    return (em_drained){filled, position - start};
}

em_drained em_store_drain_lines(const em_store *store, size_t start, size_t stop, uint8_t *out,
                                size_t out_bytes, const uint8_t *ending, size_t ending_bytes) {
    size_t filled = 0, position = start;
    for (; position < stop; position++) {
        fetch(store, position + AHEAD, stop);
        const uint8_t *row = em_store_row(store, position);
        const size_t bytes = em_row_payload_bytes(row);
        if (bytes + ending_bytes > out_bytes - filled) {
            break;
        }
        memcpy(out + filled, em_row_payload(row), bytes);
        memcpy(out + filled + bytes, ending, ending_bytes);
        filled += bytes + ending_bytes;
    }
    return (em_drained){filled, position - start};
}

/* Sort entries by the offsets of their rows. */
static em_entry *order_by_place(em_entry *entries, em_entry *scratch, size_t count) {
    for (unsigned shift = 0; shift < 32; shift += 8) {
        size_t next[256] = {0}, total = 0;
        for (size_t i = 0; i < count; i++) {
            next[entries[i].at >> shift & 0xff]++;
        }
        for (unsigned value = 0; value < 256; value++) {
            const size_t rows = next[value];
            next[value] = total;
            total += rows;
        }
        for (size_t i = 0; i < count; i++) {
            scratch[next[entries[i].at >> shift & 0xff]++] = entries[i];
        }
        em_entry *sorted = scratch;
        scratch = entries;
        entries = sorted;
    }
    return entries;
}

void em_store_keep(em_store *store, size_t count, bool bounding) {
    if (count > store->rows) { /* any later row may still be among the first */
        count = store->rows;
        bounding = false;
    }
    em_entry *const end = entries_end(store), *entries = end - store->rows;
    em_entry *scratch = store->order == entries ? entries - store->rows : entries;
    assert(store->order != NULL || count == 0);
    const uint32_t last = count == 0 ? 0 : store->order[count - 1].at;
    /* Rows are moved in the order of their offsets, so that none overwrites a row that is still to
     * be moved. */
    em_entry *kept = order_by_place(store->order, scratch, count);
    size_t used = 0;
    store->payload = 0;
    for (size_t i = 0; i < count; i++) {
        const uint8_t *row = store->memory + ((size_t)kept[i].at << store->shift);
        const size_t bytes = em_row_bytes(row);
        if (kept[i].at == last) {
            store->bound = used;
        }
        memmove(store->memory + used, row, bytes);
        store->payload += em_row_payload_bytes(store->memory + used);
        kept[i].at = (uint32_t)(used >> store->shift);
        used += aligned(store, bytes);
    }
    reverse(kept, count);
    memmove(end - count, kept, count * sizeof *kept);
    assert(used <= store->used);
    store->used = used;
    store->rows = count;
    store->bounded = bounding && count > 0;
    store->order = NULL;
}

em_drained em_write_lines(const uint8_t *block, size_t bytes, uint8_t *out, size_t out_bytes,
                          const uint8_t *ending, size_t ending_bytes, size_t *consumed) {
    em_drained done = {0, 0};
    *consumed = 0;
    while (*consumed < bytes) {
        const uint8_t *row = block + *consumed;
        if (!em_row_is_whole(row, bytes - *consumed)) {
            *consumed = SIZE_MAX;
            return done;
        }
        const size_t line = em_row_payload_bytes(row);
        if (line + ending_bytes > out_bytes - done.bytes) {
            break;
        }
        memcpy(out + done.bytes, em_row_payload(row), line);
        memcpy(out + done.bytes + line, ending, ending_bytes);
        done.bytes += line + ending_bytes;
        done.rows++;
        *consumed += em_row_bytes(row);
    }
    return done;
}
