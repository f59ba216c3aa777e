/* The shortest decimal that reads back as the float, and among those of its length the closest one.
 *
 * At most DBL_DIG digits survive a conversion to the type and back unchanged, so at most one
 * decimal of that length reads back: once found, it is the result without its trailing zeros. The C
 * library rounds longer ones correctly, one more digit at a time. Below a power of two doubles are
 * closer together, so the next higher decimal may read back when the nearest does not.
 */
#define _GNU_SOURCE
#include "numbers.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DIGITS_MAX = 17, PLAIN_BELOW = 10, PLAIN_FROM = -6 };

typedef struct {
    uint8_t digits[DIGITS_MAX + 3];
    int count;    /* without trailing zeros */
    int exponent; /* of the first digit */
} shortest;

static void strip_zeros(shortest *found) {
    while (found->count > 1 && found->digits[found->count - 1] == '0') {
        found->count--;
    }
}

static void set_digits(shortest *found, uint64_t value, int places) {
    found->count = (int)em_write_unsigned(value, found->digits);
    found->exponent = found->count - 1 - places;
    strip_zeros(found);
}

static bool reads_back(const shortest *found, double value, bool single) {
    uint8_t text[DIGITS_MAX + 16];
    memcpy(text, found->digits, (size_t)found->count);
    uint8_t *at = text + found->count;
    *at++ = 'e';
    at += em_write_signed(found->exponent - found->count + 1, at);
    const size_t size = (size_t)(at - text);
    float narrow;
    double wide;
    return single ? em_read_float(text, size, &narrow) && (double)narrow == value
                  : em_read_double(text, size, &wide) && wide == value;
}

/* Round to `digits` digits with the C library, which rounds correctly. */
static void round_to(shortest *found, double value, int digits) {
    char text[DIGITS_MAX + 16];
    snprintf(text, sizeof text, "%.*e", digits - 1, value);
    const char *at = text;
    for (found->count = 0; *at != 'e';
         at++) { /* skips the decimal point, which depends on the locale */
        if (*at >= '0' && *at <= '9') {
            found->digits[found->count++] = (uint8_t)*at;
        }
    }
    found->exponent = (int)strtol(at + 1, NULL, 10);
}

static void step_up(shortest *found) {
    int at = found->count - 1;
    while (at >= 0 && found->digits[at] == '9') {
        found->digits[at--] = '0';
    }
    if (at >= 0) {
        found->digits[at]++;
    } else {
        found->digits[0] = '1';
        found->exponent++;
    }
}

__extension__ typedef unsigned __int128 u128;

/* Find fifteen, sixteen or seventeen digits of a double whose two neighbours are equally far away.
 * value * 10^k with 17 digits before the point is a 128-bit integer over a power of two, so the
 * rounding and its error are exact. False for doubles outside that range. */
static bool find_exactly(shortest *found, double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    const uint64_t fraction = bits & ((UINT64_C(1) << 52) - 1);
    const int exponent = (int)(bits >> 52) - 1075;
    if (fraction == 0 || !(value >= 1e-10 && value < 1e16)) {
        return false;
    }
    const uint64_t mantissa = fraction | UINT64_C(1) << 52;
    int places = 16 - (int)floor(log10(value));
    uint64_t power = 1;
    for (int i = 0; i < places; i++) {
        power *= 5;
    }
    u128 scaled = (u128)mantissa * power;
    int shift = -exponent - places;
    if (places < 0 || places > 26 || shift < 1 || shift > 100) {
        return false;
    }
    const uint64_t whole = (uint64_t)(scaled >> shift);
    if (whole < UINT64_C(10000000000000000) || whole >= UINT64_C(100000000000000000)) {
        return false; /* the estimate of the logarithm was off by one: rare */
    }
    const u128 rest = scaled - ((u128)whole << shift), reach = (u128)power; /* twice half a step */
    for (uint64_t unit = 100; unit > 0; unit /= 10) {
        uint64_t digits = whole / unit;
        const u128 step = (u128)unit << shift;
        const u128 above = ((u128)(whole % unit) << shift) + rest;
        const bool up = 2 * above > step || (2 * above == step && (digits & 1) != 0);
        const u128 off = up ? step - above : above;
        digits += up;
        if (unit == 1 || 2 * off < reach || (2 * off == reach && (mantissa & 1) == 0)) {
            set_digits(found, digits, places - (unit == 100 ? 2 : unit == 10));
            return true;
        }
    }
    return false;
}

static void find_long(shortest *found, double value, bool single) {
    if (!single && find_exactly(found, value)) {
        return;
    }
    const bool subnormal = value < (single ? (double)FLT_MIN : DBL_MIN);
    const int last = single ? FLT_DECIMAL_DIG : DBL_DECIMAL_DIG;
    for (int digits = subnormal ? 1 : single ? FLT_DIG : DBL_DIG; digits <= last; digits++) {
        round_to(found, value, digits);
        if (digits == last || reads_back(found, value, single)) {
            break;
        }
        step_up(found);
        if (reads_back(found, value, single)) {
            break;
        }
    }
    strip_zeros(found);
}

/* Find a double that is a whole number, or the quotient of two exact numbers: `digits`, without
 * trailing zeros, over a power of ten. */
static bool find_quotient(double value, uint64_t *digits, int *places) {
    *places = 0;
    if (value < 9007199254740992.0 && value == (double)(int64_t)value) {
        *digits = (uint64_t)value;
        return true;
    }
    double power = 10;
    for (*places = 1; *places <= 22 && value * power < 1e15; ++*places, power *= 10) {
        *digits =
            (uint64_t)(value * power + 0.5); /* when this is not exact, the check below fails */
        if ((double)*digits / power == value && *digits >= 1) {
            return true;
        }
    }
    return false;
}

/* Write a quotient from 1e-6 to 1e10, or zero, without an exponent. */
static size_t write_plainly(double value, uint64_t digits, int places, uint8_t *out) {
    if (places == 0) {
        return em_write_unsigned(digits, out);
    }
    uint64_t power = 1;
    for (int i = 0; i < places; i++) {
        power *= 10;
    }
    const uint64_t whole = (uint64_t)value;
    const size_t count = em_write_unsigned(whole, out);
    out[count] = '.';
    em_write_digits(digits - whole * power, places, out + count + 1);
    return count + 1 + (size_t)places;
}

static bool find_short_float(shortest *found, float value) {
    if (value < 16777216.0f && value == floorf(value)) {
        set_digits(found, (uint64_t)value, 0);
        return true;
    }
    float power = 10;
    for (int places = 1; places <= 10 && value * power < 1e6f; places++, power *= 10) {
        const float digits = nearbyintf(value * power);
        if (digits / power == value && digits >= 1) {
            set_digits(found, (uint64_t)digits, places);
            return true;
        }
    }
    return false;
}

static size_t format_digits(const shortest *found, uint8_t *out) {
    const int count = found->count, exponent = found->exponent;
    uint8_t *at = out;
    if (exponent < PLAIN_FROM || exponent >= PLAIN_BELOW) {
        *at++ = found->digits[0];
        if (count > 1) {
            *at++ = '.';
            memcpy(at, found->digits + 1, (size_t)(count - 1));
            at += count - 1;
        }
        *at++ = 'e';
        if (exponent >= 0) {
            *at++ = '+';
        }
        return (size_t)(at - out) + em_write_signed(exponent, at);
    }
    if (exponent < 0) {
        memset(at, '0', (size_t)(1 - exponent));
        at[1] = '.';
        at += 1 - exponent;
        memcpy(at, found->digits, (size_t)count);
        return (size_t)(at + count - out);
    }
    const int whole = count < exponent + 1 ? count : exponent + 1;
    memcpy(at, found->digits, (size_t)whole);
    memset(at + whole, '0', (size_t)(exponent + 1 - whole));
    at += exponent + 1;
    if (count > whole) {
        *at++ = '.';
        memcpy(at, found->digits + whole, (size_t)(count - whole));
        at += count - whole;
    }
    return (size_t)(at - out);
}

static size_t write_name(double value, uint8_t *out) {
    const char *name = isnan(value) ? "nan" : value > 0 ? "inf" : "-inf";
    memcpy(out, name, strlen(name));
    return strlen(name);
}

size_t em_write_double(double value, uint8_t *out) {
    if (!isfinite(value)) {
        return write_name(value, out);
    }
    const bool minus = signbit(value) != 0;
    shortest found;
    value = fabs(value);
    *out = '-';
    uint64_t digits;
    int places;
    if (!find_quotient(value, &digits, &places)) {
        find_long(&found, value, false);
    } else if (value < 1e10 && (value >= 1e-6 || value == 0)) {
        return write_plainly(value, digits, places, out + minus) + minus;
    } else {
        set_digits(&found, digits, places);
    }
    return format_digits(&found, out + minus) + minus;
}

size_t em_write_float(float value, uint8_t *out) {
    if (!isfinite(value)) {
        return write_name((double)value, out);
    }
    const bool minus = signbit(value) != 0;
    shortest found;
    value = fabsf(value);
    *out = '-';
    if (!find_short_float(&found, value)) {
        find_long(&found, (double)value, true);
    }
    return format_digits(&found, out + minus) + minus;
}
