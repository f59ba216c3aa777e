/* Rows spread over buffers by the hash of their keys; Python spills a buffer that is full.
 *
 * Where the build side came sorted its partitions are ranges of keys, and the other side's rows go
 * to the range that their key lies in. A filter is told the build side's keys, and then leaves rows
 * of the other side out whose key is none of them (B. Bloom: "Space/time trade-offs in hash coding
 * with allowable errors", CACM 13(7), 1970; one word for each key).
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
    bool fills;          /* else it leaves rows out */
    size_t seen, missed; /* rows that it was asked about, and of these such that it left out */
} em_key_filter;

typedef struct {
    uint8_t *memory;
    size_t buffer_bytes;
    uint32_t fan_out; /* the buffer after the last takes rows whose key has a NULL */
    uint64_t seed;
    size_t *used; /* fan_out + 1 of each */
    size_t *rows;
    const em_bound *bounds; /* fan_out - 1 keys, where each range but the first begins; or NULL */
    em_key_filter filter;
} em_partitioner;

/* Spread the rows of a block from `*at` on. With `*sequence` >= 0 each gets it put before its
 * payload, and it counts up. EM_WALK_FULL: the row at `*at` does not fit buffer `*full`. */
enum em_walk em_partition_rows(em_partitioner *partitioner, const uint8_t *block, size_t size,
                               size_t *at, int64_t *sequence, uint32_t *full);

/* Put the row at `at` alone at the start of the memory, whatever its partition; all buffers are
 * empty. Returns its bytes, 0 when even all memory is too small. */
size_t em_partition_whole(em_partitioner *partitioner, const uint8_t *row, int64_t sequence);

#endif
