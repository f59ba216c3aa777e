/* clang-format off */
/* Approximate distinct count: HyperLogLog of 2^p registers, sparse while few of them are set.
 *
 * The state is a function of the set of values alone, so it is the same for every order, split and
 * merge tree of the input. Its serialized form, which a partial aggregate carries:
 *
 *     u8 p    u8 form
 *     form 0  the registers that are set, ascending: u24 little-endian, index << 6 | rank;
 *             at most 2^p / 8 of them
 *     form 1  2^p registers, one byte each
 *
 * A value's hash is XXH3-64 of its canonical bytes (docs/plan-ir.md): the index is its p highest
 * bits, the rank one more than the number of zeros that follow. P. Flajolet et al., "HyperLogLog",
 * 2007.
 */
/* clang-format on */
#ifndef EMSQRT_HLL_H
#define EMSQRT_HLL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EM_HLL_P_MIN 12
#define EM_HLL_P_MAX 14
#define EM_HLL_HEAD_BYTES 2u

/* Sparse: `count` of `capacity` entries, index << 8 | rank, ascending. Dense: capacity 0. */
typedef struct {
    uint32_t ref; /* the entries or registers in the heap, see em_heap */
    uint16_t count, capacity;
} em_hll;

static inline size_t em_hll_sparse_max(int p) {
    return (size_t)1 << (p - 3);
}

static inline size_t em_hll_bytes_max(int p) {
    return EM_HLL_HEAD_BYTES + ((size_t)1 << p);
}

static inline uint32_t em_hll_entry(uint64_t hash, int p) {
    const uint32_t index = (uint32_t)(hash >> (64 - p));
    const uint64_t rest = hash << p | UINT64_C(1) << (p - 1);
    return index << 8 | (uint32_t)(__builtin_clzll(rest) + 1);
}

/* Estimate from registers: the improved raw estimator of O. Ertl, "New cardinality estimation
 * algorithms for HyperLogLog sketches", 2017; only + - * / and square root. */
int64_t em_hll_estimate(const uint32_t *counts, int p);

/* Return the estimate of a serialized state; -1 when it is damaged. */
int64_t em_hll_estimate_bytes(const uint8_t *bytes, size_t size);

/* Return whether the bytes are a serialized state of precision `p`. */
bool em_hll_check(const uint8_t *bytes, size_t size, int p);

#endif
