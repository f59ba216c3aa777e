/* Integers wider than 64 bits: 128 bits as Arrow stores decimals, 192 bits for sums. */
#ifndef EMSQRT_WIDE_H
#define EMSQRT_WIDE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

__extension__ typedef __int128 em_i128;
__extension__ typedef unsigned __int128 em_u128;

/* A sum of 128-bit values, two's complement, lowest limb first. 2^64 values cannot overflow it, so
 * whether the final sum fits never depends on the order of the rows. */
typedef struct {
    uint64_t limbs[3];
} em_sum;

static inline em_i128 em_load_i128(const uint8_t *at) {
    em_i128 value;
    memcpy(&value, at, sizeof value);
    return value;
}

static inline void em_store_i128(uint8_t *at, em_i128 value) {
    memcpy(at, &value, sizeof value);
}

static inline void em_sum_add(em_sum *sum, const em_sum *other) {
    em_u128 carry = 0;
    for (int i = 0; i < 3; i++) {
        carry += (em_u128)sum->limbs[i] + other->limbs[i];
        sum->limbs[i] = (uint64_t)carry;
        carry >>= 64;
    }
}

static inline em_sum em_sum_of(em_i128 value) {
    return (em_sum){
        {(uint64_t)value, (uint64_t)((em_u128)value >> 64), value < 0 ? UINT64_MAX : 0}};
}

/* Return whether the sum fits 128 bits; `value` receives its low 128 bits in any case. */
bool em_sum_narrow(const em_sum *sum, em_i128 *value);

/* Return whether `value` has at most 38 digits. */
bool em_fits_decimal(em_i128 value);

/* Return magnitude * 2^exponent rounded to the nearest double, ties to even; too large ones become
 * infinity. `limbs` hold the magnitude, lowest first; `sticky` says that nonzero bits below it were
 * cut off. */
double em_round_scaled(const uint64_t *limbs, size_t count, int64_t exponent, bool sticky);

/* Return value / 10^scale rounded once to the nearest double; scale may be negative. */
double em_decimal_to_double(em_i128 value, int scale);

/* Minimal two's complement bytes, lowest first: write 1 to `size` bytes and return how many. */
static inline size_t em_pack_integer(uint8_t *out, const uint64_t *limbs, size_t count) {
    uint8_t bytes[24];
    memcpy(bytes, limbs, count * 8);
    size_t size = count * 8;
    const uint8_t fill = bytes[size - 1] & 0x80 ? 0xFF : 0;
    while (size > 1 && bytes[size - 1] == fill && ((bytes[size - 2] ^ fill) & 0x80) == 0) {
        size--;
    }
    memcpy(out, bytes, size);
    return size;
}

static inline size_t em_pack_i64(uint8_t *out, int64_t value) {
    const uint64_t folded = (uint64_t)(value ^ (value >> 63));
    const size_t bits = folded == 0 ? 1 : 65 - (size_t)__builtin_clzll(folded);
    memcpy(out, &value, 8); /* callers leave room for eight */
    return (bits + 7) / 8;
}

/* Read at most eight bytes of two's complement. */
static inline int64_t em_unpack_i64(const uint8_t *in, size_t size) {
    uint64_t word = 0;
    if (size >= 4) { /* two words, which may overlap */
        uint32_t low, high;
        memcpy(&low, in, 4);
        memcpy(&high, in + size - 4, 4);
        word = low | (uint64_t)high << (8 * (size - 4));
    } else if (size > 0) {
        const size_t middle = size / 2;
        word = (uint64_t)in[0] | (uint64_t)in[middle] << (8 * middle) |
               (uint64_t)in[size - 1] << (8 * (size - 1));
    } else {
        return 0;
    }
    const unsigned shift = 64 - 8 * (unsigned)size;
    return (int64_t)(word << shift) >> shift;
}

/* Read `size` bytes of two's complement into `count` limbs. */
static inline void em_unpack_integer(const uint8_t *in, size_t size, uint64_t *limbs,
                                     size_t count) {
    if (size <= 8) {
        const int64_t value = em_unpack_i64(in, size);
        for (size_t i = 0; i < count; i++) {
            limbs[i] = (uint64_t)(i == 0 ? value : value >> 63);
        }
        return;
    }
    memset(limbs, size > 0 && (in[size - 1] & 0x80) ? 0xFF : 0, count * 8);
    memcpy(limbs, in, size);
}

#endif
