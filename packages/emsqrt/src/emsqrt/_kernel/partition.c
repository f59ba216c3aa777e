/* Grace partitioning: each level has its own seed, so its hash bits are independent of those of the
 * levels above. */
#include "partition.h"

enum {
    SEEN_MIN = 1 << 16, /* after so many rows a filter is switched off, */
    MISSED_SHARE = 16,  /* unless it has dropped at least one row in 16 */
};

/* Return the number of bounds that are not greater than a key: the index of its range. */
static uint32_t range_of(const em_partitioner *partitioner, const uint8_t *key, uint32_t bytes) {
    uint32_t low = 0, high = partitioner->fan_out - 1;
    while (low < high) {
        const uint32_t middle = (low + high) / 2;
        const em_bound *bound = &partitioner->bounds[middle];
        if (em_compare_texts(bound->key, bound->bytes, key, bytes) <= 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* Whether a key may be among those that the filter collected; a filter that `fills` adds it. A
 * filter that drops few of the first SEEN_MIN rows is switched off. */
static bool passes_filter(em_key_filter *filter, uint64_t hash) {
    /* The hash's lower half selects the word, because its upper half selects the buffer; three
     * bits of another product are set in it. */
    uint64_t *word = &filter->words[(hash & UINT32_MAX) * (uint64_t)filter->count >> 32];
    const uint64_t bits = hash * UINT64_C(0x9E3779B97F4A7C15);
    const uint64_t mask = UINT64_C(1) << (bits >> 58) | UINT64_C(1) << (bits >> 52 & 63) |
                          UINT64_C(1) << (bits >> 46 & 63);
    if (filter->fills) {
        *word |= mask;
        return true;
    }
    const bool found = (*word & mask) == mask;
    filter->missed += !found;
    if (++filter->seen == SEEN_MIN && filter->missed < SEEN_MIN / MISSED_SHARE) {
        filter->count = 0;
    }
    return found;
}

/* Find the buffer of a row; false when the filter drops the row. */
static bool find_buffer(em_partitioner *partitioner, const uint8_t *row, uint32_t *buffer) {
    const uint32_t key_bytes = em_joined_key_bytes(row);
    if (key_bytes == 0) {
        *buffer = partitioner->fan_out;
        return true;
    }
    if (partitioner->bounds != NULL) {
        *buffer = range_of(partitioner, em_row_key(row), key_bytes);
        return true;
    }
    const uint64_t hash = em_hash_key(em_row_key(row), key_bytes, partitioner->seed);
    *buffer = (uint32_t)((hash >> 32) * partitioner->fan_out >> 32);
    return partitioner->filter.count == 0 || passes_filter(&partitioner->filter, hash);
}

static uint32_t stored_bytes(const uint8_t *row, int64_t sequence) {
    return em_row_bytes(row) + (sequence < 0 ? 0 : EM_NUMBER_BYTES);
}

/* Copy a row, with its number, if any, between key and payload. */
static void store(uint8_t *to, const uint8_t *row, int64_t sequence) {
    if (sequence < 0) {
        memcpy(to, row, em_row_bytes(row));
        return;
    }
    const uint32_t before = EM_ROW_HEAD_BYTES + em_joined_key_bytes(row);
    memcpy(to, row, before);
    em_store32(to, stored_bytes(row, sequence));
    for (uint32_t i = 0; i < EM_NUMBER_BYTES; i++) {
        to[before + i] = (uint8_t)((uint64_t)sequence >> (56 - 8 * i));
    }
    memcpy(to + before + EM_NUMBER_BYTES, row + before, em_row_bytes(row) - before);
}

enum em_walk em_partition_rows(em_partitioner *partitioner, const uint8_t *block, size_t size,
                               size_t *at, int64_t *sequence, uint32_t *full) {
    while (*at < size) {
        const uint8_t *row = em_spilled_row_at(block, size, *at, false);
        if (row == NULL) {
            return EM_WALK_DAMAGED;
        }
        const uint32_t bytes = stored_bytes(row, *sequence);
        uint32_t to;
        if (!find_buffer(partitioner, row, &to)) {
            *at += em_row_bytes(row);
            *sequence += *sequence >= 0;
            continue;
        }
        if (bytes > partitioner->buffer_bytes - partitioner->used[to]) {
            *full = to;
            return EM_WALK_FULL;
        }
        store(partitioner->memory + to * partitioner->buffer_bytes + partitioner->used[to], row,
              *sequence);
        partitioner->used[to] += bytes;
        partitioner->rows[to]++;
        *at += em_row_bytes(row);
        *sequence += *sequence >= 0;
    }
    return EM_WALK_ON;
}

size_t em_partition_whole(em_partitioner *partitioner, const uint8_t *row, int64_t sequence) {
    const size_t bytes = stored_bytes(row, sequence);
    if (bytes > partitioner->buffer_bytes * (partitioner->fan_out + 1)) {
        return 0;
    }
    store(partitioner->memory, row, sequence);
    return bytes;
}
