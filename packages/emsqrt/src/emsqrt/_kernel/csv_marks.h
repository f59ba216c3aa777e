/* Find the bytes that mean something in CSV, sixty-four at a time, one bit each.
 *
 * The parity over bits of quotes is due to Langdale and Lemire, "Parsing gigabytes of JSON per
 * second" (VLDB Journal 28, 2019).
 */
#ifndef EMSQRT_CSV_MARKS_H
#define EMSQRT_CSV_MARKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__SSE2__) && !defined(EMSQRT_PORTABLE)
#include <immintrin.h>
#if defined(__x86_64__) && defined(__GNUC__) && !defined(EMSQRT_NARROW)
#define EM_WIDE /* there is AVX2 code too, chosen at run time */
#endif

typedef struct {
    __m128i part[4];
} em_chunk;

static inline em_chunk em_load_chunk(const uint8_t *at) {
    em_chunk chunk;
    for (int i = 0; i < 4; i++) {
        chunk.part[i] = _mm_loadu_si128((const __m128i *)(const void *)(at + 16 * i));
    }
    return chunk;
}

/* Bit i is set when byte i is `octet`. */
static inline uint64_t em_equal(const em_chunk *chunk, uint8_t octet) {
    const __m128i wanted = _mm_set1_epi8((char)octet);
    uint64_t bits = 0;
    for (int i = 0; i < 4; i++) {
        const int found = _mm_movemask_epi8(_mm_cmpeq_epi8(chunk->part[i], wanted));
        bits |= (uint64_t)(uint32_t)found << (16 * i);
    }
    return bits;
}
#else
typedef struct {
    uint64_t part[8];
} em_chunk;

static inline em_chunk em_load_chunk(const uint8_t *at) {
    em_chunk chunk;
    memcpy(&chunk, at, sizeof chunk);
    return chunk;
}

static inline uint64_t em_equal(const em_chunk *chunk, uint8_t octet) {
    const uint64_t low = UINT64_C(0x7f7f7f7f7f7f7f7f);
    uint64_t bits = 0;
    for (int i = 0; i < 8; i++) {
        const uint64_t other = chunk->part[i] ^ (octet * UINT64_C(0x0101010101010101));
        const uint64_t zero = ~(((other & low) + low) | other | low);
        bits |= (((zero >> 7) * UINT64_C(0x0102040810204080)) >> 56) << (8 * i);
    }
    return bits;
}
#endif

/* The names that the included loops use; `csv_wide.h` redefines them for wider registers. */
#define EM_TARGET
#define EM_CHUNK em_chunk
#define EM_LOAD em_load_chunk
#define EM_LOAD_REST em_load_rest
#define EM_EQUAL em_equal
#define EM_COUNT em_count_bits
#define EM_PARITY em_parity
#define EM_FIRST em_first_bit

/* Load the last bytes, fewer than 64; the rest is zero, which `em_live` masks. */
static inline em_chunk em_load_rest(const uint8_t *at, size_t size) {
    uint8_t padded[64] = {0};
    memcpy(padded, at, size);
    return em_load_chunk(padded);
}

static inline size_t em_count_bits(uint64_t bits) {
    bits -= bits >> 1 & UINT64_C(0x5555555555555555);
    bits = (bits & UINT64_C(0x3333333333333333)) + (bits >> 2 & UINT64_C(0x3333333333333333));
    bits = (bits + (bits >> 4)) & UINT64_C(0x0f0f0f0f0f0f0f0f);
    return (size_t)((bits * UINT64_C(0x0101010101010101)) >> 56);
}

/* The index of the lowest set bit; any number when none is set. */
static inline uint32_t em_first_bit(uint64_t bits) {
    return (uint32_t)__builtin_ctzll(bits | UINT64_C(1) << 63);
}

static inline uint64_t em_live(size_t size) {
    return size < 64 ? (UINT64_C(1) << size) - 1 : ~UINT64_C(0);
}

/* Bit i is the parity of bits 0..i: inside quotes from an opening quote up to its closing one. */
static inline uint64_t em_parity(uint64_t bits) {
    for (int shift = 1; shift < 64; shift *= 2) {
        bits ^= bits << shift;
    }
    return bits;
}

#endif
