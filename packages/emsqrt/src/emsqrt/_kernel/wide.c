/* Wide integers to doubles, rounded once. */
#include "wide.h"

#include <stdio.h>
#include <stdlib.h>

bool em_sum_narrow(const em_sum *sum, em_i128 *value) {
    *value = (em_i128)((em_u128)sum->limbs[1] << 64 | sum->limbs[0]);
    return sum->limbs[2] == (*value < 0 ? UINT64_MAX : 0);
}

bool em_fits_decimal(em_i128 value) {
    const em_u128 ten19 = UINT64_C(10000000000000000000);
    const em_u128 limit = ten19 * ten19;
    const em_u128 magnitude = value < 0 ? -(em_u128)value : (em_u128)value;
    return magnitude < limit;
}

/* Return bits [from, from + 64) of a magnitude. */
static uint64_t window(const uint64_t *limbs, size_t count, size_t from) {
    const size_t limb = from / 64, shift = from % 64;
    uint64_t bits = limb < count ? limbs[limb] >> shift : 0;
    if (shift > 0 && limb + 1 < count) {
        bits |= limbs[limb + 1] << (64 - shift);
    }
    return bits;
}

static bool any_below(const uint64_t *limbs, size_t bit) {
    for (size_t i = 0; i < bit / 64; i++) {
        if (limbs[i] != 0) {
            return true;
        }
    }
    return bit % 64 > 0 && limbs[bit / 64] << (64 - bit % 64) != 0;
}

double em_round_scaled(const uint64_t *limbs, size_t count, int64_t exponent, bool sticky) {
    size_t top = count;
    while (top > 0 && limbs[top - 1] == 0) {
        top--;
    }
    if (top == 0) {
        return 0.0;
    }
    const size_t length = top * 64 - (size_t)__builtin_clzll(limbs[top - 1]);
    const int64_t leading = (int64_t)length - 1 + exponent;
    if (leading > 1023) {
        return (double)__builtin_inf();
    }
    /* A subnormal has fewer mantissa bits; below half of the smallest one the result is zero. */
    const int64_t kept = leading >= -1022 ? 53 : leading + 1075;
    if (kept < 0) {
        return 0.0;
    }
    uint64_t mantissa;
    if ((int64_t)length <= kept) {
        mantissa = limbs[0] << (kept - (int64_t)length);
    } else {
        const size_t drop = length - (size_t)kept;
        mantissa = kept == 0 ? 0 : window(limbs, top, drop);
        const bool half = window(limbs, top, drop - 1) & 1;
        sticky |= any_below(limbs, drop - 1);
        mantissa += half && (sticky || (mantissa & 1));
    }
    const uint64_t field = leading >= -1022 ? (uint64_t)(leading + 1022) : 0;
    const uint64_t bits = (field << 52) + mantissa; /* the hidden bit carries into the field */
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static double by_text(em_i128 value, int scale) {
    char digits[64];
    char *at = digits + sizeof digits;
    em_u128 rest = value < 0 ? -(em_u128)value : (em_u128)value;
    char tail[24];
    const int tail_size = snprintf(tail, sizeof tail, "e%d", -scale);
    at -= tail_size + 1;
    memcpy(at, tail, (size_t)tail_size + 1);
    do {
        *--at = (char)('0' + (int)(rest % 10));
        rest /= 10;
    } while (rest > 0);
    if (value < 0) {
        *--at = '-';
    }
    return strtod(at, NULL); /* rounds once; no locale matters without a point */
}

double em_decimal_to_double(em_i128 value, int scale) {
    static const double tens[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                  1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                  1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    const em_i128 exact = (em_i128)1 << 53;
    if (scale == 0) {
        return (double)value; /* to the nearest, ties to even */
    }
    if (value <= exact && value >= -exact && scale > 0 && scale <= 22) {
        return (double)(int64_t)value / tens[scale]; /* both exact, so one rounding */
    }
    return by_text(value, scale);
}
