/* Rows spread over buffers by the hash of their keys; Python spills a buffer that is full. */
#ifndef EMSQRT_PARTITION_H
#define EMSQRT_PARTITION_H

#include "join_rows.h"

typedef struct {
    uint8_t *memory;
    size_t buffer_bytes;
    uint32_t fan_out; /* the buffer after the last takes rows whose key has a NULL */
    uint64_t seed;
    size_t *used; /* fan_out + 1 of each */
    size_t *rows;
} em_partitioner;

/* Spread the rows of a block from `*at` on. With `*sequence` >= 0 each gets it put before its
 * payload, and it counts up. EM_WALK_FULL: the row at `*at` does not fit buffer `*full`. */
enum em_walk em_partition_rows(em_partitioner *partitioner, const uint8_t *block, size_t size,
                               size_t *at, int64_t *sequence, uint32_t *full);

/* Put the row at `at` alone at the start of the memory, whatever its partition; all buffers are
 * empty. Returns its bytes, 0 when even all memory is too small. */
size_t em_partition_whole(em_partitioner *partitioner, const uint8_t *row, int64_t sequence);

/* The buffer that a row goes to. */
uint32_t em_partition_of(const em_partitioner *partitioner, const uint8_t *row);

#endif
