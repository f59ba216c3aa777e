/* Partition rows into buffers by the hash of their keys; Python spills a buffer that is full.
 *
 * When the build side is sorted, its partitions are ranges of keys instead, and rows of the other
 * side go to the range that contains their key. A filter collects the build side's keys and then
 * drops rows of the other side whose key is not among them (B. Bloom: "Space/time trade-offs in
 * hash coding with allowable errors", CACM 13(7), 1970; one word per key).
 */
#ifndef EMSQRT_PARTITION_H
#define EMSQRT_PARTITION_H

#include "join_rows.h"

typedef struct {
    const uint8_t *key;
    uint32_t bytes;
} em_bound;

typedef struct {
    uint64_t *words;
    size_t count;        /* 0 for no filter */
    bool fills;          /* collects keys; otherwise it drops rows */
    size_t seen, missed; /* rows looked up, and those of them that were dropped */
} em_key_filter;

typedef struct {
    uint8_t *memory;
    size_t buffer_bytes;
    uint32_t fan_out; /* one more buffer holds rows whose key has a NULL */
    uint64_t seed;
    size_t *used; /* fan_out + 1 elements each */
    size_t *rows;
    const em_bound *bounds; /* fan_out - 1 keys, the start of each range but the first; or NULL */
    em_key_filter filter;
} em_partitioner;

/* Partition the rows of a block from `*at` on. With `*sequence` >= 0, each row gets that number
 * before its payload, and the number is incremented. EM_WALK_FULL: the row at `*at` does not fit
 * buffer `*full`. */
enum em_walk em_partition_rows(em_partitioner *partitioner, const uint8_t *block, size_t size,
                               size_t *at, int64_t *sequence, uint32_t *full);

/* Store one row alone at the start of the memory, regardless of its partition; all buffers must be
 * empty. Return its bytes, 0 when the whole memory is too small. */
size_t em_partition_whole(em_partitioner *partitioner, const uint8_t *row, int64_t sequence);

#endif
