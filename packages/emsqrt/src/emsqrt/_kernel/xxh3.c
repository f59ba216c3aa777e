#include "xxh3.h"

#include <string.h>

enum { SECRET_BYTES = 192, STRIPE_BYTES = 64, LANES = 8, STRIPES_OF_BLOCK = 16 };

static const uint64_t PRIME32_1 = 0x9E3779B1u, PRIME32_2 = 0x85EBCA77u, PRIME32_3 = 0xC2B2AE3Du;
static const uint64_t PRIME64_1 = 0x9E3779B185EBCA87u, PRIME64_2 = 0xC2B2AE3D27D4EB4Fu;
static const uint64_t PRIME64_3 = 0x165667B19E3779F9u, PRIME64_4 = 0x85EBCA77C2B2AE63u;
static const uint64_t PRIME64_5 = 0x27D4EB2F165667C5u;
static const uint64_t PRIME_MX1 = 0x165667919E3779F9u, PRIME_MX2 = 0x9FB21C651E98DF25u;

static const uint8_t SECRET[SECRET_BYTES] = {
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c,
    0xde, 0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f,
    0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21,
    0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c,
    0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3,
    0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8,
    0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d,
    0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64,
    0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
    0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e,
    0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce,
    0x45, 0xcb, 0x3a, 0x8f, 0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e,
};

static inline uint32_t load32(const uint8_t *at) {
    uint32_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

static inline uint64_t load64(const uint8_t *at) {
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

static inline void store64(uint8_t *at, uint64_t word) {
    memcpy(at, &word, sizeof word);
}

static inline uint64_t rotate(uint64_t word, int by) {
    return (word << by) | (word >> (64 - by));
}

static inline uint64_t fold(uint64_t left, uint64_t right) {
    const unsigned __int128 product = (unsigned __int128)left * right;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline uint64_t avalanche(uint64_t hash) {
    hash = (hash ^ (hash >> 37)) * PRIME_MX1;
    return hash ^ (hash >> 32);
}

static inline uint64_t avalanche_xxh64(uint64_t hash) {
    hash = (hash ^ (hash >> 33)) * PRIME64_2;
    hash = (hash ^ (hash >> 29)) * PRIME64_3;
    return hash ^ (hash >> 32);
}

static inline uint64_t mix16(const uint8_t *data, const uint8_t *secret, uint64_t seed) {
    return fold(load64(data) ^ (load64(secret) + seed),
                load64(data + 8) ^ (load64(secret + 8) - seed));
}

static uint64_t hash_to_16(const uint8_t *data, size_t bytes, uint64_t seed) {
    if (bytes > 8) {
        const uint64_t low_flip = (load64(SECRET + 24) ^ load64(SECRET + 32)) + seed;
        const uint64_t high_flip = (load64(SECRET + 40) ^ load64(SECRET + 48)) - seed;
        const uint64_t low = load64(data) ^ low_flip;
        const uint64_t high = load64(data + bytes - 8) ^ high_flip;
        return avalanche(bytes + __builtin_bswap64(low) + high + fold(low, high));
    }
    if (bytes >= 4) {
        const uint64_t mixed = seed ^ ((uint64_t)__builtin_bswap32((uint32_t)seed) << 32);
        const uint64_t flip = (load64(SECRET + 8) ^ load64(SECRET + 16)) - mixed;
        uint64_t hash = load32(data + bytes - 4) + ((uint64_t)load32(data) << 32);
        hash ^= flip;
        hash ^= rotate(hash, 49) ^ rotate(hash, 24);
        hash *= PRIME_MX2;
        hash ^= (hash >> 35) + bytes;
        hash *= PRIME_MX2;
        return hash ^ (hash >> 28);
    }
    if (bytes > 0) {
        const uint32_t first = data[0], middle = data[bytes >> 1], last = data[bytes - 1];
        const uint32_t word = (first << 16) | (middle << 24) | last | ((uint32_t)bytes << 8);
        return avalanche_xxh64(word ^ ((uint64_t)(load32(SECRET) ^ load32(SECRET + 4)) + seed));
    }
    return avalanche_xxh64(seed ^ load64(SECRET + 56) ^ load64(SECRET + 64));
}

/* 17 to 128 bytes: pairs from both ends, the innermost first. */
static uint64_t hash_to_128(const uint8_t *data, size_t bytes, uint64_t seed) {
    uint64_t hash = bytes * PRIME64_1;
    for (size_t pair = (bytes - 1) / 32 + 1; pair-- > 0;) {
        hash += mix16(data + 16 * pair, SECRET + 32 * pair, seed);
        hash += mix16(data + bytes - 16 * (pair + 1), SECRET + 32 * pair + 16, seed);
    }
    return avalanche(hash);
}

static uint64_t hash_to_240(const uint8_t *data, size_t bytes, uint64_t seed) {
    const size_t rounds = bytes / 16;
    uint64_t hash = bytes * PRIME64_1;
    for (size_t i = 0; i < 8; i++) {
        hash += mix16(data + 16 * i, SECRET + 16 * i, seed);
    }
    hash = avalanche(hash);
    for (size_t i = 8; i < rounds; i++) {
        hash += mix16(data + 16 * i, SECRET + 16 * (i - 8) + 3, seed);
    }
    return avalanche(hash + mix16(data + bytes - 16, SECRET + 136 - 17, seed));
}

/* Lane i adds the product of its halves and its neighbour's word; written so that compilers
 * vectorise it. */
static inline void accumulate(uint64_t *restrict lanes, const uint8_t *restrict data,
                              const uint8_t *restrict secret) {
    for (size_t i = 0; i < LANES; i += 2) {
        const uint64_t even = load64(data + 8 * i), odd = load64(data + 8 * i + 8);
        const uint64_t even_key = even ^ load64(secret + 8 * i);
        const uint64_t odd_key = odd ^ load64(secret + 8 * i + 8);
        lanes[i] += odd + (even_key & UINT32_MAX) * (even_key >> 32);
        lanes[i + 1] += even + (odd_key & UINT32_MAX) * (odd_key >> 32);
    }
}

static inline void scramble(uint64_t *restrict lanes, const uint8_t *restrict secret) {
    for (size_t i = 0; i < LANES; i++) {
        const uint64_t lane = lanes[i];
        lanes[i] = (lane ^ (lane >> 47) ^ load64(secret + 8 * i)) * PRIME32_1;
    }
}

static uint64_t hash_long(const uint8_t *data, size_t bytes, const uint8_t *secret) {
    uint64_t lanes[LANES] = {PRIME32_3, PRIME64_1, PRIME64_2, PRIME64_3,
                             PRIME64_4, PRIME32_2, PRIME64_5, PRIME32_1};
    const size_t stripes = (bytes - 1) / STRIPE_BYTES;
    size_t stripe = 0;
    for (size_t block = 0; block < stripes / STRIPES_OF_BLOCK; block++) {
        for (size_t i = 0; i < STRIPES_OF_BLOCK; i++, stripe++) {
            accumulate(lanes, data + stripe * STRIPE_BYTES, secret + 8 * i);
        }
        scramble(lanes, secret + SECRET_BYTES - STRIPE_BYTES);
    }
    for (size_t i = 0; stripe < stripes; i++, stripe++) {
        accumulate(lanes, data + stripe * STRIPE_BYTES, secret + 8 * i);
    }
    accumulate(lanes, data + bytes - STRIPE_BYTES, secret + SECRET_BYTES - STRIPE_BYTES - 7);
    uint64_t hash = bytes * PRIME64_1;
    for (size_t i = 0; i < LANES; i += 2) {
        hash += fold(lanes[i] ^ load64(secret + 11 + 8 * i),
                     lanes[i + 1] ^ load64(secret + 11 + 8 * i + 8));
    }
    return avalanche(hash);
}

static uint64_t hash_long_seeded(const uint8_t *data, size_t bytes, uint64_t seed) {
    uint8_t secret[SECRET_BYTES];
    for (size_t i = 0; i < SECRET_BYTES; i += 16) {
        store64(secret + i, load64(SECRET + i) + seed);
        store64(secret + i + 8, load64(SECRET + i + 8) - seed);
    }
    return hash_long(data, bytes, secret);
}

uint64_t em_xxh3(const void *data, size_t bytes, uint64_t seed) {
    if (bytes <= 16) {
        return hash_to_16(data, bytes, seed);
    }
    if (bytes <= 128) {
        return hash_to_128(data, bytes, seed);
    }
    if (bytes <= 240) {
        return hash_to_240(data, bytes, seed);
    }
    return seed == 0 ? hash_long(data, bytes, SECRET) : hash_long_seeded(data, bytes, seed);
}
