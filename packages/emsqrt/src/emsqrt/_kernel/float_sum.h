/* A sum of doubles that is the same for every order, split and merge tree: spec/float-sum.md.
 *
 * `em_float_sum` is the state of the specification, byte for byte. `em_float_bins` is a smaller
 * form for tables of many groups: 64-bit sums of at most EM_FLOAT_ADDS_MAX finite values.
 */
#ifndef EMSQRT_FLOAT_SUM_H
#define EMSQRT_FLOAT_SUM_H

#include "wide.h"

#define EM_FLOAT_STATE_BYTES 80u
#define EM_FLOAT_ADDS_MAX (1u << 22)
#define EM_FLOAT_BINS 53
#define EM_FLOAT_BIN_BITS 40

typedef struct {
    int32_t top; /* -1: no finite value other than zero */
    em_i128 sums[3];
    uint64_t pos_inf, neg_inf, nan;
} em_float_sum;

typedef struct {
    int64_t sums[3];
    uint32_t above; /* top + 1, so that zeroed memory is the empty sum */
    uint32_t adds;
} em_float_bins;

#define EM_FLOAT_EMPTY ((em_float_sum){.top = -1})

/* A value split at the bins' borders: signed pieces for bins `bin`, `bin + 1`, `bin + 2`. */
typedef struct {
    int64_t pieces[3];
    int32_t bin, top;
} em_float_cut;

static inline em_float_cut em_float_cut_of(uint64_t bits) {
    const uint64_t mask = (UINT64_C(1) << EM_FLOAT_BIN_BITS) - 1;
    const uint32_t field = (uint32_t)(bits >> 52) & 0x7FF;
    const uint64_t hidden = (uint64_t)(field > 0);
    const uint64_t mantissa = (bits & ((UINT64_C(1) << 52) - 1)) | hidden << 52;
    /* The mantissa's lowest bit has weight 2^(lowest - 1080), and bin b begins at weight
     * `2^(40b-1080)`. 53 bits shifted by less than 40 are in three bins at most. */
    const uint32_t lowest = field + 6 - (uint32_t)hidden;
    const uint32_t bin = lowest * 1639 >> 16; /* lowest / 40, for lowest < 2100 */
    const uint32_t offset = lowest - bin * 40;
    const int64_t sign = (int64_t)bits >> 63;
    const uint64_t above = mantissa >> (40 - offset);
    const int64_t low = (int64_t)(mantissa << offset & mask);
    const int64_t middle = (int64_t)(above & mask), high = (int64_t)(above >> 40);
    /* `sign` is 0 or -1: (x ^ sign) - sign is x or -x. */
    em_float_cut cut = {{(low ^ sign) - sign, (middle ^ sign) - sign, (high ^ sign) - sign},
                        (int32_t)bin,
                        (int32_t)bin + (high != 0 ? 2 : middle != 0)};
    return cut;
}

static inline bool em_float_is_special(uint64_t bits) {
    return (bits >> 52 & 0x7FF) == 0x7FF;
}

static inline uint64_t em_float_bits(double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* Add a finite value; the caller keeps `adds` within EM_FLOAT_ADDS_MAX. */
static inline void em_float_bins_add(em_float_bins *bins, uint64_t bits) {
    bins->adds++;
    if (bits << 1 == 0) {
        return;
    }
    const em_float_cut cut = em_float_cut_of(bits);
    int32_t top = (int32_t)bins->above - 1;
    if (cut.top > top) {
        const int32_t up = top < 0 ? 3 : cut.top - top;
        bins->sums[2] = up == 1 ? bins->sums[1] : up == 2 ? bins->sums[0] : 0;
        bins->sums[1] = up == 1 ? bins->sums[0] : 0;
        bins->sums[0] = 0;
        top = cut.top;
        bins->above = (uint32_t)top + 1;
    }
    const int32_t down =
        top - cut.bin; /* the bin of the lowest piece; pieces above the top are zero */
    switch (down) {
    case 0:
        bins->sums[0] += cut.pieces[0];
        break;
    case 1:
        bins->sums[1] += cut.pieces[0];
        bins->sums[0] += cut.pieces[1];
        break;
    case 2:
        bins->sums[2] += cut.pieces[0];
        bins->sums[1] += cut.pieces[1];
        bins->sums[0] += cut.pieces[2];
        break;
    case 3:
        bins->sums[2] += cut.pieces[1];
        bins->sums[1] += cut.pieces[2];
        break;
    case 4:
        bins->sums[2] += cut.pieces[2];
        break;
    default:
        break;
    }
}

/* Add values, infinities and NaN included, to a state. */
void em_float_sum_add(em_float_sum *sum, const double *values, size_t count);
/* Add the squares of values, each exact as a sum of two doubles. */
void em_float_sum_add_squares(em_float_sum *sum, const double *values, size_t count);
/* Split the square of a value into 1 or 2 doubles whose sum is exact; return how many. */
size_t em_square(double value, double parts[2]);
void em_float_sum_add_one(em_float_sum *sum, double value);
void em_float_sum_merge(em_float_sum *sum, const em_float_sum *other);
em_float_sum em_float_widened(const em_float_bins *bins);
/* Convert a state to the small form; false when it does not fit. `adds` starts again. */
bool em_float_narrowed(const em_float_sum *sum, em_float_bins *bins);

/* Add `more`; false, with nothing changed, when later additions could then overflow. */
bool em_float_bins_merge(em_float_bins *bins, const em_float_bins *more);

double em_float_value(const em_float_sum *sum);
double em_float_bins_value(const em_float_bins *bins);
/* The sample variance of `count` >= 2 values, rounded once. */
double em_float_variance(uint64_t count, const em_float_sum *total, const em_float_sum *squares);

void em_float_store(uint8_t out[EM_FLOAT_STATE_BYTES], const em_float_sum *sum);
/* Read a serialized state; false for bytes that the specification does not allow. */
bool em_float_load(const uint8_t in[EM_FLOAT_STATE_BYTES], em_float_sum *sum);

#endif
