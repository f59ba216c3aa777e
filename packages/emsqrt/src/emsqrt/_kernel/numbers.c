/* The float fast path is Clinger's ("How to read floating point numbers accurately", PLDI 1990):
 * when a significand and a power of ten are both exact, one operation rounds once. The C library
 * reads all other floats, exactly. */
#define _GNU_SOURCE /* strtod_l */
#include "numbers.h"

#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned __int128 u128;

static locale_t plain;

bool em_numbers_open(void) {
    if (plain == (locale_t)0) {
        plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    }
    return plain != (locale_t)0;
}

static inline bool is_digit(uint8_t octet) {
    return (uint8_t)(octet - '0') < 10;
}

/* Integers
 * ------------------------------------------------------------------------------------
 */

/* Read up to eight digits at once: right-align them after zeros, then add neighbours, pairs and
 * fours (Daniel Lemire, "Quickly parsing eight digits", 2018). */
static bool read_eight_digits(const uint8_t *text, size_t size, uint64_t *out) {
    uint64_t octets;
    uint32_t first, last;
    if (size == 8) {
        memcpy(&octets, text, 8);
    } else if (size >= 4) {
        memcpy(&first, text, 4);
        memcpy(&last, text + size - 4, 4);
        octets = (uint64_t)first << (64 - 8 * size) | (uint64_t)last << 32;
    } else {
        octets = (uint64_t)text[0] << (64 - 8 * size) |
                 (uint64_t)text[size / 2] << (56 - 8 * (size - 1 - size / 2)) |
                 (uint64_t)text[size - 1] << 56;
    }
    const uint64_t unused = size == 8 ? 0 : ~UINT64_C(0) >> (8 * size);
    octets = (octets | (unused & UINT64_C(0x3030303030303030))) ^ UINT64_C(0x3030303030303030);
    if (((octets | (octets + UINT64_C(0x7676767676767676))) & UINT64_C(0x8080808080808080)) != 0) {
        return false;
    }
    octets = octets * 10 + (octets >> 8);
    *out = ((octets & UINT64_C(0x000000ff000000ff)) * UINT64_C(0x000f424000000064) +
            (octets >> 16 & UINT64_C(0x000000ff000000ff)) * UINT64_C(0x0000271000000001)) >>
           32;
    return true;
}

static bool read_decimal_digits(const uint8_t *text, size_t size, uint64_t *out) {
    uint64_t value, rest;
    if (size - 1 < 8) {
        return read_eight_digits(text, size, out);
    }
    while (size > 1 && *text == '0') {
        text++, size--;
    }
    if (size == 0 || size > 20 || !read_eight_digits(text, size < 8 ? size : 8, &value)) {
        return false;
    }
    for (size_t at = 8; at < size; at++) {
        rest = (uint64_t)(text[at] - '0');
        if (!is_digit(text[at]) || __builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, rest, &value)) {
            return false;
        }
    }
    *out = value;
    return true;
}

static bool read_hexadecimal(const uint8_t *text, size_t size, size_t digits_max, uint64_t *out) {
    if (size == 0 || size > digits_max) {
        return false;
    }
    uint64_t value = 0;
    for (size_t i = 0; i < size; i++) {
        const uint8_t octet = text[i], letter = (uint8_t)((octet | 0x20) - 'a');
        if (!is_digit(octet) && letter > 5) {
            return false;
        }
        value = value << 4 | (uint64_t)(is_digit(octet) ? octet - '0' : letter + 10);
    }
    *out = value;
    return true;
}

bool em_read_integer(const uint8_t *text, size_t size, enum em_kind kind, void *out) {
    const size_t width = em_width(kind);
    const bool is_signed = kind <= EM_I64;
    const unsigned bits = (unsigned)(8 * width) - (is_signed ? 1 : 0);
    const uint64_t largest = ~UINT64_C(0) >> (64 - bits);
    const bool minus = is_signed && size > 0 && *text == '-';
    uint64_t value;
    if (size > 2 && text[0] == '0' && (text[1] | 0x20) == 'x') {
        if (!read_hexadecimal(text + 2, size - 2, 2 * width, &value)) {
            return false;
        }
    } else if (!read_decimal_digits(text + minus, size - minus, &value) ||
               value > largest + minus) {
        return false;
    }
    value = minus ? 0 - value : value;
    em_copy_word(out, &value, width);
    return true;
}

/* Floats
 * --------------------------------------------------------------------------------------
 */

typedef struct {
    bool negative;
    bool exact;           /* `digits` holds every significant digit */
    uint64_t digits;      /* the first nineteen significant digits */
    int64_t exponent;     /* power of ten for `digits`, when exact */
    const uint8_t *first; /* the first significant digit; the point may be anywhere after it */
    const uint8_t *stop;  /* end of the digits and the point */
} scanned;

static int64_t read_exponent(const uint8_t **at, const uint8_t *end, bool *valid) {
    const uint8_t *next = *at + 1;
    const bool minus = next < end && *next == '-';
    next += next < end && (*next == '-' || *next == '+');
    int64_t value = 0;
    *valid = next < end && is_digit(*next);
    for (; next < end && is_digit(*next); next++) {
        value = value < INT64_C(100000000000) ? value * 10 + (*next - '0') : value;
    }
    *at = next;
    return minus ? -value : value;
}

static bool scan_float(const uint8_t *text, size_t size, scanned *found) {
    const uint8_t *at = text, *const end = text + size;
    found->negative = at < end && *at == '-';
    at += at < end && (*at == '-' || *at == '+');
    uint64_t digits = 0;
    int64_t count = 0, behind = 0;
    bool point = false, any = false;
    found->first = NULL;
    for (; at < end; at++) {
        if (is_digit(*at)) {
            any = true;
            behind += point;
            if (digits == 0 && *at == '0') {
                continue;
            }
            if (found->first == NULL) {
                found->first = at;
            }
            if (count++ < 19) {
                digits = digits * 10 + (uint64_t)(*at - '0');
            }
        } else if (*at == '.' && !point) {
            point = true;
        } else {
            break;
        }
    }
    if (!any) {
        return false;
    }
    found->stop = at;
    bool valid = true;
    found->exponent = -behind;
    if (at < end && (*at | 0x20) == 'e') {
        found->exponent += read_exponent(&at, end, &valid);
    }
    found->digits = digits;
    found->exact = count <= 19;
    return valid && at == end;
}

static bool is_word(const uint8_t *text, size_t size, const char *word) {
    size_t i = 0;
    for (; i < size && word[i] != '\0'; i++) {
        if ((text[i] | 0x20) != word[i]) {
            return false;
        }
    }
    return i == size && word[i] == '\0';
}

/* Read `inf`, `infinity`, `nan` or `nan(letters)`, with a sign. */
static bool read_name(const uint8_t *text, size_t size, double *out) {
    const bool sign = size > 0 && (*text == '-' || *text == '+');
    const bool minus = sign && *text == '-';
    text += sign, size -= sign;
    if (is_word(text, size, "inf") || is_word(text, size, "infinity")) {
        *out = minus ? -HUGE_VAL : HUGE_VAL;
        return true;
    }
    if (size < 3 || !is_word(text, 3, "nan")) {
        return false;
    }
    *out = (double)NAN;
    if (size == 3) {
        return true;
    }
    for (size_t i = 4; i < size - 1; i++) {
        const uint8_t letter = (uint8_t)((text[i] | 0x20) - 'a');
        if (!is_digit(text[i]) && letter > 25 && text[i] != '_') {
            return false;
        }
    }
    return size > 4 && text[3] == '(' && text[size - 1] == ')';
}

enum { EXACT_DIGITS = 800 }; /* 768 digits decide any double; one more represents all that follow */

/* Write the number as digits, exponent and NUL, for the C library. */
static void write_plain(const scanned *found, char *out) {
    size_t count = 0;
    int64_t dropped = 0;
    bool sticky = false;
    *out++ = found->negative ? '-' : '+';
    for (const uint8_t *at = found->first; at != NULL && at < found->stop; at++) {
        if (*at == '.') {
            continue;
        }
        if (count < EXACT_DIGITS) {
            out[count++] = (char)*at;
        } else {
            sticky |= *at != '0';
            dropped++;
        }
    }
    if (sticky) {
        out[count++] = '1';
        dropped--;
    }
    int64_t exponent = found->exponent + dropped;
    exponent = exponent > 99999 ? 99999 : exponent < -99999 ? -99999 : exponent;
    out[count++] = 'e';
    out[count++] = exponent < 0 ? '-' : '+';
    em_write_digits((uint64_t)(exponent < 0 ? -exponent : exponent), 5, (uint8_t *)out + count);
    out[count + 5] = '\0';
}

bool em_read_double(const uint8_t *text, size_t size, double *out) {
    static const double powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                    1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                    1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    scanned found;
    if (!scan_float(text, size, &found)) {
        return read_name(text, size, out);
    }
    const int64_t exponent = found.exponent;
    double value;
    if (found.digits == 0) {
        value = 0;
    } else if (found.exact && found.digits <= UINT64_C(1) << 53 && exponent >= -22 &&
               exponent <= 22) {
        value = (double)found.digits;
        value = exponent < 0 ? value / powers[-exponent] : value * powers[exponent];
    } else {
        char plainly[EXACT_DIGITS + 16];
        write_plain(&found, plainly);
        *out = strtod_l(plainly, NULL, plain);
        return true;
    }
    *out = found.negative ? -value : value;
    return true;
}

bool em_read_float(const uint8_t *text, size_t size, float *out) {
    static const float powers[] = {1e0f, 1e1f, 1e2f, 1e3f, 1e4f, 1e5f,
                                   1e6f, 1e7f, 1e8f, 1e9f, 1e10f};
    scanned found;
    double named;
    if (!scan_float(text, size, &found)) {
        const bool valid = read_name(text, size, &named);
        *out = valid ? (float)named : 0;
        return valid;
    }
    const int64_t exponent = found.exponent;
    float value;
    if (found.digits == 0) {
        value = 0;
    } else if (found.exact && found.digits <= 1 << 24 && exponent >= -10 && exponent <= 10) {
        value = (float)found.digits;
        value = exponent < 0 ? value / powers[-exponent] : value * powers[exponent];
    } else {
        char plainly[EXACT_DIGITS + 16];
        write_plain(&found, plainly);
        *out = strtof_l(plainly, NULL, plain);
        return true;
    }
    *out = found.negative ? -value : value;
    return true;
}

/* Decimals
 * ------------------------------------------------------------------------------------
 */

/* Return 10^exponent, for 0 to 38. */
static u128 power_of_ten(int64_t exponent) {
    static const uint64_t powers[] = {1,
                                      10,
                                      100,
                                      1000,
                                      10000,
                                      100000,
                                      1000000,
                                      10000000,
                                      100000000,
                                      1000000000,
                                      10000000000,
                                      100000000000,
                                      1000000000000,
                                      10000000000000,
                                      100000000000000,
                                      1000000000000000,
                                      10000000000000000,
                                      100000000000000000,
                                      1000000000000000000,
                                      10000000000000000000U};
    return exponent < 20 ? (u128)powers[exponent] : (u128)powers[19] * powers[exponent - 19];
}

bool em_read_decimal(const uint8_t *text, size_t size, int precision, int scale, void *out) {
    const uint8_t *at = text, *const end = text + size;
    const bool minus = size > 0 && *at == '-';
    at += size > 0 && (*at == '-' || *at == '+');
    u128 value = 0;
    int64_t significant = 0, behind = 0, exponent = 0;
    bool point = false, any = false, valid = true;
    for (; at < end && (is_digit(*at) || (*at == '.' && !point)); at++) {
        if (*at == '.') {
            point = true;
            continue;
        }
        any = true;
        behind += point;
        significant += point || significant > 0 || *at != '0';
        if (significant > precision) {
            return false;
        }
        value = value * 10 + (u128)(unsigned)(*at - '0');
    }
    if (any && at < end && (*at | 0x20) == 'e') {
        exponent = read_exponent(&at, end, &valid);
    }
    if (!any || !valid || at < end || exponent > 76 || exponent < -76) {
        return false;
    }
    const int64_t held = behind > exponent ? behind - exponent : 0;
    const int64_t raised = exponent > behind ? exponent - behind : 0;
    if (significant + raised > precision) {
        return false;
    }
    value *= power_of_ten(raised);
    if (held <= scale) {
        const int64_t moved = scale - held;
        if (value != 0 && (moved > precision || value >= power_of_ten(precision - moved))) {
            return false;
        }
        value *= value == 0 ? 1 : power_of_ten(moved);
    } else if (value != 0) {
        const u128 divisor = held - scale > 38 ? 0 : power_of_ten(held - scale);
        if (divisor == 0 || value % divisor != 0) {
            return false;
        }
        value /= divisor;
    }
    value = minus ? 0 - value : value;
    memcpy(out, &value, 16);
    return true;
}

/* To text
 * -------------------------------------------------------------------------------------
 */

static const char two_digits[] = "0001020304050607080910111213141516171819"
                                 "2021222324252627282930313233343536373839"
                                 "4041424344454647484950515253545556575859"
                                 "6061626364656667686970717273747576777879"
                                 "8081828384858687888990919293949596979899";

static size_t count_digits(uint64_t value) {
    const unsigned bits = 64 - (unsigned)__builtin_clzll(value | 1);
    const unsigned least = bits * 1233 >> 12; /* bits * log10(2), rounded down */
    return least + (value >= (uint64_t)power_of_ten((int64_t)least) || value == 0);
}

size_t em_write_unsigned(uint64_t value, uint8_t *out) {
    const size_t count = count_digits(value);
    uint8_t *at = out + count;
    for (; value >= 100; value /= 100) {
        at -= 2;
        memcpy(at, two_digits + 2 * (value % 100), 2);
    }
    if (value >= 10) {
        memcpy(out, two_digits + 2 * value, 2);
    } else {
        *out = (uint8_t)('0' + value);
    }
    return count;
}

size_t em_write_signed(int64_t value, uint8_t *out) {
    if (value >= 0) {
        return em_write_unsigned((uint64_t)value, out);
    }
    *out = '-';
    return 1 + em_write_unsigned(0 - (uint64_t)value, out + 1);
}

size_t em_write_decimal(const void *value, int scale, uint8_t *out) {
    const uint64_t half = UINT64_C(10000000000000000000);
    u128 left;
    memcpy(&left, value, 16);
    const bool minus = left >> 127 != 0;
    left = minus ? 0 - left : left;
    uint8_t digits[EM_NUMBER_BYTES];
    const uint64_t lower = (uint64_t)(left % half), upper = (uint64_t)(left / half % half);
    em_write_digits((uint64_t)(left / half / half), 2, digits);
    em_write_digits(upper, 19, digits + 2);
    em_write_digits(lower, 19, digits + 21);
    int first = 0;
    while (first < 39 - scale && digits[first] == '0') {
        first++;
    }
    *out = '-';
    out += minus;
    const size_t whole = (size_t)(40 - scale - first);
    memcpy(out, digits + first, whole);
    if (scale == 0) {
        return whole + minus;
    }
    out[whole] = '.';
    memcpy(out + whole + 1, digits + 40 - scale, (size_t)scale);
    return whole + 1 + (size_t)scale + minus;
}
