/* Write and read packed payloads (pack.h) of many rows at a time, column by column.
 *
 * The kind of a column is examined once per batch of rows rather than once per value, and the rows
 * of a batch stay in the cache while all columns are written or read.
 */
#ifndef EMSQRT_ROW_COLUMNS_H
#define EMSQRT_ROW_COLUMNS_H

#include "pack.h"

enum { EM_ROW_COLUMNS_MAX = 256 };

/* Compute the payload bytes of `count` rows, at most EM_ROW_COLUMNS_MAX, from row `start` on. */
void em_row_columns_sizes(const em_payload *payload, const em_columns *columns, size_t start,
                          size_t count, size_t *bytes);

/* Write the payloads of these rows; row r has `bytes[r]` bytes and goes to `out[r]`. */
void em_row_columns_write(const em_payload *payload, const em_columns *columns, size_t start,
                          size_t count, const size_t *bytes, uint8_t *const *out);

/* Append rows that em_packed_measure() accepted by `form` to placed arrays: `packed` points to
 * `rows` payloads, at most EM_ROW_COLUMNS_MAX, which all end before `end`; `first` is the index of
 * the first one in the arrays, a multiple of 8. */
void em_row_columns_read(const em_packed_form *form, em_array *arrays, size_t count,
                         const uint8_t *const *packed, const uint8_t *end, size_t first,
                         size_t rows);

#endif
