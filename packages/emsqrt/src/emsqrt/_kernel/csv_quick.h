/* The fast path for plain numbers, read eight bytes at a time: up to eight digits, or up to seven
 * before a point and one to eight after it, with an optional minus. em_read_value() reads all other
 * numbers. */
#ifndef EMSQRT_CSV_QUICK_H
#define EMSQRT_CSV_QUICK_H

#include "csv_types.h"

enum { EM_QUICK_READ = 17 }; /* bytes that may be read, from the first one of the text */

static inline uint64_t em_quick_load(const uint8_t *text) {
    uint64_t octets;
    memcpy(&octets, text, sizeof octets);
    return octets;
}

/* Set the high bit of each byte that is not a digit; exact only up to the lowest such byte. */
static inline uint64_t em_quick_non_digits(uint64_t octets) {
    const uint64_t digits = octets ^ UINT64_C(0x3030303030303030);
    return (digits | (digits + UINT64_C(0x7676767676767676))) & UINT64_C(0x8080808080808080);
}

/* Return the value of the first `count` bytes, 1 to 8 digits: add neighbours, then pairs and fours
 * (Daniel Lemire, "Quickly parsing eight digits", 2018). */
static inline uint64_t em_quick_value(uint64_t octets, size_t count) {
    octets = (octets ^ UINT64_C(0x3030303030303030)) << (64 - 8 * count);
    octets = octets * 10 + (octets >> 8);
    return ((octets & UINT64_C(0x000000ff000000ff)) * UINT64_C(0x000f424000000064) +
            (octets >> 16 & UINT64_C(0x000000ff000000ff)) * UINT64_C(0x0000271000000001)) >>
           32;
}

static const uint32_t em_quick_powers[] = {1,      10,      100,      1000,     10000,
                                           100000, 1000000, 10000000, 100000000};

/* Read digits, and how many of them come after a decimal point; EM_QUICK_READ bytes must be
 * readable. */
static inline bool em_quick_digits(const uint8_t *text, size_t size, uint64_t *digits,
                                   size_t *behind) {
    const uint64_t octets = em_quick_load(text), non_digits = em_quick_non_digits(octets);
    const size_t whole = non_digits == 0 ? 8 : (size_t)__builtin_ctzll(non_digits) / 8;
    if (size - 1 < 8 && whole >= size) {
        *digits = em_quick_value(octets, size);
        *behind = 0;
        return true;
    }
    const size_t rest = size - whole - 1;
    if (whole - 1 > 6 || text[whole] != '.' || rest - 1 > 7) {
        return false;
    }
    const uint64_t fraction = em_quick_load(text + whole + 1),
                   fraction_non_digits = em_quick_non_digits(fraction);
    if (fraction_non_digits != 0 && (size_t)__builtin_ctzll(fraction_non_digits) / 8 < rest) {
        return false;
    }
    *digits =
        em_quick_value(octets, whole) * em_quick_powers[rest] + em_quick_value(fraction, rest);
    *behind = rest;
    return true;
}

/* Read a value of a type that em_is_quick(), as em_read_value() does; false when the text needs
 * em_read_value(). */
static inline bool em_quick_read(const em_type *type, const uint8_t *text, size_t size,
                                 uint8_t *out) {
    static const double powers[] = {1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8};
    const bool minus = *text == '-';
    uint64_t digits;
    size_t behind;
    if (!em_quick_digits(text + minus, size - minus, &digits, &behind)) {
        return false;
    }
    if (type->form == EM_AS_DOUBLE) {
        const double value = (double)(int64_t)digits / powers[behind];
        const double put = minus ? -value : value;
        memcpy(out, &put, sizeof put);
        return true;
    }
    if (behind > type->scale) {
        return false;
    }
    int64_t words[2] = {(int64_t)digits * em_quick_powers[type->scale - behind], 0};
    words[0] = minus ? -words[0] : words[0];
    words[1] = words[0] >> 63;
    memcpy(out, words, type->form == EM_AS_DECIMAL ? 16 : 8);
    return true;
}

/* Types of the fast path: 64-bit integers, doubles, and decimals with enough digits for any number
 * it reads. */
static inline bool em_is_quick(const em_type *type) {
    return (type->form == EM_AS_INTEGER && type->kind == EM_I64) || type->form == EM_AS_DOUBLE ||
           (type->form == EM_AS_DECIMAL && type->scale <= 8 && type->precision >= 8 + type->scale);
}

#endif
