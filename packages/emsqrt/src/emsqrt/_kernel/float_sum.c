/* spec/float-sum.md in C: adding, merging, the serialized 80 bytes, and the value rounded once. */
#include "float_sum.h"

#ifdef __clang__
#pragma STDC FP_CONTRACT OFF /* a fused multiply-add would change the error term of a square */
#endif

#define BIAS_BITS 1080

static void raise_top(em_float_sum *sum, int32_t top) {
    const int32_t up = top - sum->top;
    if (up <= 0) {
        return;
    }
    for (int i = 2; i >= 0; i--) {
        sum->sums[i] = sum->top >= 0 && i >= up ? sum->sums[i - up] : 0;
    }
    sum->top = top;
}

static void add_piece(em_float_sum *sum, int32_t bin, em_i128 piece) {
    const int32_t down = sum->top - bin;
    if (down >= 0 && down < 3) {
        sum->sums[down] += piece;
    }
}

static void count_special(em_float_sum *sum, uint64_t bits) {
    const bool nan = bits << 12 != 0;
    sum->nan += nan;
    sum->pos_inf += !nan && bits >> 63 == 0;
    sum->neg_inf += !nan && bits >> 63 == 1;
}

void em_float_sum_add_one(em_float_sum *sum, double value) {
    const uint64_t bits = em_float_bits(value);
    if (em_float_is_special(bits)) {
        count_special(sum, bits);
    } else if (bits << 1 != 0) {
        const em_float_cut cut = em_float_cut_of(bits);
        raise_top(sum, cut.top);
        for (int i = 0; i < 3; i++) {
            add_piece(sum, cut.bin + i, cut.pieces[i]);
        }
    }
}

/* Add to all bins, in two sets so that one value need not wait for the one before it. Pieces above
 * a value's highest bin are zero; nothing has been dropped yet, so the order cannot matter. */
static void add_many(em_float_sum *sum, const double *values, size_t count) {
    int64_t bins[2][EM_FLOAT_BINS + 3] = {{0}};
    uint64_t largest = 0;
    for (size_t i = 0; i < count; i++) {
        const uint64_t bits = em_float_bits(values[i]), magnitude = bits << 1 >> 1;
        if (em_float_is_special(bits)) {
            count_special(sum, bits);
            continue;
        }
        const em_float_cut cut = em_float_cut_of(bits);
        int64_t *into = &bins[i & 1][cut.bin];
        into[0] += cut.pieces[0];
        into[1] += cut.pieces[1];
        into[2] += cut.pieces[2];
        largest = magnitude > largest ? magnitude : largest;
    }
    if (largest == 0) {
        return;
    }
    raise_top(sum, em_float_cut_of(largest).top);
    for (int32_t bin = 0; bin < EM_FLOAT_BINS; bin++) {
        add_piece(sum, bin, (em_i128)bins[0][bin] + bins[1][bin]);
    }
}

void em_float_sum_add(em_float_sum *sum, const double *values, size_t count) {
    while (count > 0) {
        const size_t now = count < EM_FLOAT_ADDS_MAX ? count : EM_FLOAT_ADDS_MAX;
        add_many(sum, values, now);
        values += now;
        count -= now;
    }
}

size_t em_square(double value, double parts[2]) {
    const double product = value * value;
    parts[0] = product;
    if (!(product >= 0x1p-968 && product < (double)__builtin_inf())) {
        return 1;
    }
    const double split = value * 134217729.0; /* Dekker's two-product */
    const double high = split - (split - value), low = value - high;
    parts[1] = ((high * high - product) + 2.0 * high * low) + low * low;
    return 2;
}

void em_float_sum_add_squares(em_float_sum *sum, const double *values, size_t count) {
    double parts[256];
    while (count > 0) {
        const size_t now = count < 128 ? count : 128;
        size_t filled = 0;
        for (size_t i = 0; i < now; i++) {
            filled += em_square(values[i], parts + filled);
        }
        add_many(sum, parts, filled);
        values += now;
        count -= now;
    }
}

void em_float_sum_merge(em_float_sum *sum, const em_float_sum *other) {
    raise_top(sum, other->top);
    for (int i = 0; other->top >= 0 && i < 3; i++) {
        add_piece(sum, other->top - i, other->sums[i]);
    }
    sum->pos_inf += other->pos_inf;
    sum->neg_inf += other->neg_inf;
    sum->nan += other->nan;
}

em_float_sum em_float_widened(const em_float_bins *bins) {
    return (em_float_sum){.top = (int32_t)bins->above - 1,
                          .sums = {bins->sums[0], bins->sums[1], bins->sums[2]}};
}

bool em_float_narrowed(const em_float_sum *sum, em_float_bins *bins) {
    const em_i128 room = (em_i128)1 << 61;
    bool fits = (sum->pos_inf | sum->neg_inf | sum->nan) == 0;
    for (int i = 0; i < 3; i++) {
        fits &= sum->sums[i] < room && sum->sums[i] > -room;
        bins->sums[i] = (int64_t)sum->sums[i];
    }
    bins->above = (uint32_t)(sum->top + 1);
    bins->adds = 2; /* any number but 1, which would mean a single value: see em_pack() */
    return fits;
}

static int64_t raised(const em_float_bins *bins, int i, uint32_t up) {
    const int64_t from = (int64_t)i - up;
    return from >= 0 ? bins->sums[from] : 0;
}

bool em_float_bins_merge(em_float_bins *bins, const em_float_bins *more) {
    const int64_t room = INT64_C(1) << 61;
    const uint32_t above = bins->above > more->above ? bins->above : more->above;
    em_float_bins sum = {.above = above, .adds = 2};
    for (int i = 0; i < 3; i++) {
        if (__builtin_add_overflow(raised(bins, i, above - bins->above),
                                   raised(more, i, above - more->above), &sum.sums[i]) ||
            sum.sums[i] >= room || sum.sums[i] <= -room) {
            return false;
        }
    }
    *bins = sum;
    return true;
}

/* Add a signed 128-bit number, shifted left, to a signed one of 256 bits. */
static void add_shifted(uint64_t limbs[4], em_i128 value, unsigned shift) {
    const uint64_t fill = value < 0 ? UINT64_MAX : 0;
    const uint64_t words[4] = {(uint64_t)value, (uint64_t)((em_u128)value >> 64), fill, fill};
    const unsigned whole = shift / 64, part = shift % 64;
    em_u128 carry = 0;
    for (unsigned i = 0; i < 4; i++) {
        uint64_t word = i >= whole ? words[i - whole] << part : 0;
        if (part > 0 && i > whole) {
            word |= words[i - whole - 1] >> (64 - part);
        }
        carry += (em_u128)limbs[i] + word;
        limbs[i] = (uint64_t)carry;
        carry >>= 64;
    }
}

/* Compute the value of the three bins in units of the lowest: the magnitude in `limbs`; return
 * whether it is negative. */
static bool magnitude_of(const em_float_sum *sum, uint64_t limbs[4]) {
    memset(limbs, 0, 4 * sizeof *limbs);
    add_shifted(limbs, sum->sums[2], 0);
    add_shifted(limbs, sum->sums[1], EM_FLOAT_BIN_BITS);
    add_shifted(limbs, sum->sums[0], 2 * EM_FLOAT_BIN_BITS);
    const bool negative = limbs[3] >> 63;
    uint64_t carry = 1;
    for (int i = 0; negative && i < 4; i++) {
        limbs[i] = ~limbs[i] + carry;
        carry = carry && limbs[i] == 0;
    }
    return negative;
}

static int64_t unit_of(const em_float_sum *sum) {
    return (int64_t)EM_FLOAT_BIN_BITS * (sum->top - 2) - BIAS_BITS;
}

double em_float_value(const em_float_sum *sum) {
    if (sum->nan > 0 || (sum->pos_inf > 0 && sum->neg_inf > 0)) {
        return (double)__builtin_nan("");
    }
    if (sum->pos_inf > 0 || sum->neg_inf > 0) {
        return sum->pos_inf > 0 ? (double)__builtin_inf() : -(double)__builtin_inf();
    }
    uint64_t limbs[4];
    const bool negative = magnitude_of(sum, limbs);
    const double value = em_round_scaled(limbs, 4, unit_of(sum), false);
    return negative ? -value : value;
}

/* A sum that fits 128 bits is rounded by one conversion; a scaling whose result is not subnormal is
 * exact. */
double em_float_bins_value(const em_float_bins *bins) {
    const int64_t room = INT64_C(1) << 46, high = bins->sums[0];
    const int64_t unit = (int64_t)EM_FLOAT_BIN_BITS * ((int64_t)bins->above - 3) - BIAS_BITS;
    if (high >= room || high <= -room || unit < -1000 || unit > 850) {
        const em_float_sum sum = em_float_widened(bins);
        return em_float_value(&sum);
    }
    const em_i128 middle = (em_i128)1 << EM_FLOAT_BIN_BITS;
    const em_i128 total = (high * middle + bins->sums[1]) * middle + bins->sums[2];
    const uint64_t bits = (uint64_t)(unit + 1023) << 52;
    double scale;
    memcpy(&scale, &bits, sizeof scale);
    return (double)total * scale;
}

/* Numbers of 1024 bits: enough for n * B and A * A at one unit (see em_float_variance). */
#define BIG 16

typedef struct {
    uint64_t limbs[BIG];
} big;

static big big_product(const uint64_t *left, size_t left_count, const uint64_t *right,
                       size_t right_count) {
    big out = {{0}};
    for (size_t i = 0; i < left_count; i++) {
        uint64_t carry = 0;
        for (size_t j = 0; j < right_count; j++) {
            const em_u128 at = (em_u128)left[i] * right[j] + out.limbs[i + j] + carry;
            out.limbs[i + j] = (uint64_t)at;
            carry = (uint64_t)(at >> 64);
        }
        out.limbs[i + right_count] = carry;
    }
    return out;
}

static big big_shifted(const big *value, unsigned shift) {
    big out = {{0}};
    const unsigned whole = shift / 64, part = shift % 64;
    for (unsigned i = whole; i < BIG; i++) {
        out.limbs[i] = value->limbs[i - whole] << part;
        if (part > 0 && i > whole) {
            out.limbs[i] |= value->limbs[i - whole - 1] >> (64 - part);
        }
    }
    return out;
}

/* Subtract in place; false when the result would be negative. */
static bool big_subtract(big *left, const big *right) {
    uint64_t borrow = 0;
    for (int i = 0; i < BIG; i++) {
        const em_u128 at = (em_u128)left->limbs[i] - right->limbs[i] - borrow;
        left->limbs[i] = (uint64_t)at;
        borrow = (uint64_t)(at >> 64) & 1;
    }
    return borrow == 0;
}

/* Return numerator / divisor * 2^unit, rounded once: long division, one bit at a time. */
static double rounded_quotient(const big *numerator, em_u128 divisor, int64_t unit) {
    int top = BIG * 64 - 1;
    while (top >= 0 && !(numerator->limbs[top / 64] >> (top % 64) & 1)) {
        top--;
    }
    em_u128 rest = 0, quotient = 0;
    int64_t place = top;
    /* After the numerator's last bit come zeros, until 66 bits of the quotient are known. */
    for (; top >= 0 && (place >= 0 || quotient >> 66 == 0) && quotient >> 126 == 0; place--) {
        const bool bit = place >= 0 && (numerator->limbs[place / 64] >> (place % 64) & 1);
        const bool over = rest >> 127;
        rest = rest << 1 | bit;
        quotient <<= 1;
        if (over || rest >= divisor) {
            rest -= divisor;
            quotient |= 1;
        }
    }
    /* `place` is one less than the last bit that was brought down. */
    bool sticky = rest != 0;
    for (int64_t below = place; below >= 0; below--) {
        sticky |= numerator->limbs[below / 64] >> (below % 64) & 1;
    }
    const uint64_t limbs[2] = {(uint64_t)quotient, (uint64_t)(quotient >> 64)};
    return em_round_scaled(limbs, 2, unit + place + 1, sticky);
}

double em_float_variance(uint64_t count, const em_float_sum *total, const em_float_sum *squares) {
    const double sum = em_float_value(total), square_sum = em_float_value(squares);
    if (!__builtin_isfinite(sum) || !__builtin_isfinite(square_sum)) {
        return (double)__builtin_nan("");
    }
    uint64_t a[4], b[4];
    (void)magnitude_of(total, a);
    if (magnitude_of(squares, b) || squares->top < 0) {
        return 0.0;
    }
    big scaled = big_product(b, 4, &count, 1), squared = big_product(a, 4, a, 4);
    int64_t unit = unit_of(squares);
    const int64_t square_unit = 2 * unit_of(total);
    /* The largest |x| determines both units, so they are at most about 160 bits apart; a greater
     * distance means a damaged state. */
    const int64_t apart = total->top < 0 ? 0 : unit - square_unit;
    if (apart > 400 || apart < -400) {
        return (double)__builtin_nan("");
    }
    if (apart > 0) {
        scaled = big_shifted(&scaled, (unsigned)apart);
        unit = square_unit;
    } else if (apart < 0) {
        squared = big_shifted(&squared, (unsigned)-apart);
    }
    if (!big_subtract(&scaled, &squared)) {
        return 0.0;
    }
    return rounded_quotient(&scaled, (em_u128)count * (count - 1), unit);
}

void em_float_store(uint8_t out[EM_FLOAT_STATE_BYTES], const em_float_sum *sum) {
    memset(out, 0, EM_FLOAT_STATE_BYTES);
    memcpy(out, &sum->top, 4);
    memcpy(out + 8, sum->sums, 48);
    memcpy(out + 56, &sum->pos_inf, 8);
    memcpy(out + 64, &sum->neg_inf, 8);
    memcpy(out + 72, &sum->nan, 8);
}

bool em_float_load(const uint8_t in[EM_FLOAT_STATE_BYTES], em_float_sum *sum) {
    uint32_t zero;
    memcpy(&sum->top, in, 4);
    memcpy(&zero, in + 4, 4);
    memcpy(sum->sums, in + 8, 48);
    memcpy(&sum->pos_inf, in + 56, 8);
    memcpy(&sum->neg_inf, in + 64, 8);
    memcpy(&sum->nan, in + 72, 8);
    return zero == 0 && sum->top >= -1 && sum->top < EM_FLOAT_BINS;
}
