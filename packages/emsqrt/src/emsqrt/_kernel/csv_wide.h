/* Chunks of 64 bytes for processors with AVX2: half the steps of SSE2. Included once, after the
 * loops for the other processors. */
#ifndef EMSQRT_CSV_WIDE_H
#define EMSQRT_CSV_WIDE_H

#include "csv_marks.h"

#define EM_AVX2 __attribute__((target("avx2,bmi,bmi2,lzcnt,pclmul,popcnt")))

typedef struct {
    __m256i part[2];
} em_wide_chunk;

static inline bool em_is_wide(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2") &&
           __builtin_cpu_supports("pclmul");
}

EM_AVX2 static inline em_wide_chunk em_load_wide(const uint8_t *at) {
    return (em_wide_chunk){{_mm256_loadu_si256((const __m256i *)(const void *)at),
                            _mm256_loadu_si256((const __m256i *)(const void *)(at + 32))}};
}

EM_AVX2 static inline em_wide_chunk em_load_wide_rest(const uint8_t *at, size_t size) {
    uint8_t padded[64] = {0};
    memcpy(padded, at, size);
    return em_load_wide(padded);
}

EM_AVX2 static inline uint64_t em_equal_wide(const em_wide_chunk *chunk, uint8_t octet) {
    const __m256i wanted = _mm256_set1_epi8((char)octet);
    const int low = _mm256_movemask_epi8(_mm256_cmpeq_epi8(chunk->part[0], wanted));
    const int high = _mm256_movemask_epi8(_mm256_cmpeq_epi8(chunk->part[1], wanted));
    return (uint64_t)(uint32_t)high << 32 | (uint32_t)low;
}

EM_AVX2 static inline size_t em_count_wide(uint64_t bits) {
    return (size_t)__builtin_popcountll(bits);
}

EM_AVX2 static inline uint32_t em_first_wide(uint64_t bits) {
    return (uint32_t)_tzcnt_u64(bits);
}

/* Carry-less multiplication by all ones: bit i is the exclusive or of bits 0..i. */
EM_AVX2 static inline uint64_t em_parity_wide(uint64_t bits) {
    const __m128i ones = _mm_set1_epi8((char)0xff);
    const __m128i product = _mm_clmulepi64_si128(_mm_set_epi64x(0, (int64_t)bits), ones, 0);
    return (uint64_t)_mm_cvtsi128_si64(product);
}

#undef EM_TARGET
#undef EM_CHUNK
#undef EM_LOAD
#undef EM_LOAD_REST
#undef EM_EQUAL
#undef EM_COUNT
#undef EM_PARITY
#undef EM_FIRST
#define EM_TARGET EM_AVX2
#define EM_CHUNK em_wide_chunk
#define EM_LOAD em_load_wide
#define EM_LOAD_REST em_load_wide_rest
#define EM_EQUAL em_equal_wide
#define EM_COUNT em_count_wide
#define EM_PARITY em_parity_wide
#define EM_FIRST em_first_wide

#endif
