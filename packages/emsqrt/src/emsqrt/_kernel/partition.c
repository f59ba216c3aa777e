/* Grace partitioning: a level's seed gives bits that the levels above have not used. */
#include "partition.h"

uint32_t em_partition_of(const em_partitioner *partitioner, const uint8_t *row) {
    const uint32_t key_bytes = em_row_key_bytes(row);
    if (key_bytes == 0) {
        return partitioner->fan_out;
    }
    const uint64_t hash = em_hash_key(em_row_key(row), key_bytes, partitioner->seed);
    return (uint32_t)((hash >> 32) * partitioner->fan_out >> 32);
}

static uint32_t stored_bytes(const uint8_t *row, int64_t sequence) {
    return em_row_bytes(row) + (sequence < 0 ? 0 : EM_NUMBER_BYTES);
}

/* Copy a row; a number goes between its key and its payload. */
static void store(uint8_t *to, const uint8_t *row, int64_t sequence) {
    if (sequence < 0) {
        memcpy(to, row, em_row_bytes(row));
        return;
    }
    const uint32_t before = EM_ROW_HEAD_BYTES + em_row_key_bytes(row);
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
        const uint8_t *row = em_row_at(block, size, *at, false);
        if (row == NULL) {
            return EM_WALK_DAMAGED;
        }
        const uint32_t bytes = stored_bytes(row, *sequence);
        const uint32_t to = em_partition_of(partitioner, row);
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
