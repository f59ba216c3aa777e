/* Read numbers from text and write them, as Arrow's CSV reader and its casts to text do. */
#ifndef EMSQRT_NUMBERS_H
#define EMSQRT_NUMBERS_H

#include "columns.h"

/* Open the "C" locale that the exact float reader needs; false when the C library has none. */
bool em_numbers_open(void);

/* Each of these reads the whole of `text` and returns whether it is a number of that kind. */

/* Read `-?digits`, or `0x` and at most as many hexadecimal digits as the kind can hold. */
bool em_read_integer(const uint8_t *text, size_t size, enum em_kind kind, void *out);

/* Read a decimal number with an optional exponent, or `inf`, `infinity` or `nan` in any case;
 * correctly rounded. */
bool em_read_double(const uint8_t *text, size_t size, double *out);
bool em_read_float(const uint8_t *text, size_t size, float *out);

/* Read a decimal number with an optional exponent, exactly, as 16 bytes little-endian in units of
 * the scale. As in Arrow, digits after the point count toward the precision even when they are
 * zero. */
bool em_read_decimal(const uint8_t *text, size_t size, int precision, int scale, void *out);

/* Each of these writes to `out`, which has room for EM_NUMBER_BYTES, and returns the bytes written.
 */
enum { EM_NUMBER_BYTES = 48 };
size_t em_write_unsigned(uint64_t value, uint8_t *out);
size_t em_write_signed(int64_t value, uint8_t *out);
size_t em_write_decimal(const void *value, int scale, uint8_t *out);

/* Write the shortest text that reads back as the same value, without exponent from 1e-6 to 1e10: 2,
 * 0.1, 1e+10, nan, -inf. */
size_t em_write_double(double value, uint8_t *out);
size_t em_write_float(float value, uint8_t *out);

/* Write exactly `digits` digits of a value that has no more than these. */
static inline void em_write_digits(uint64_t value, int digits, uint8_t *out) {
    for (int i = digits - 1; i >= 0; i--) {
        out[i] = (uint8_t)('0' + value % 10);
        value /= 10;
    }
}

#endif
