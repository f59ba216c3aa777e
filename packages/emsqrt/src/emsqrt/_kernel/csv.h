/* The CSV dialect: RFC 4180 as Python's `csv` and Arrow extend it.
 *
 * A quote opens a quoted field only at the field's start, a doubled quote inside it is a literal
 * quote, anything after the closing quote belongs to the field, and a record ends at LF, CRLF or a
 * lone CR outside quotes.
 */
#ifndef EMSQRT_CSV_H
#define EMSQRT_CSV_H

#include "columns.h"

typedef struct {
    uint8_t delimiter;
    int16_t quote; /* -1: nothing is quoted */
} em_dialect;

/* Return the end of the last complete record of `data`, which starts at a record's start; 0 when
 * there is none. A CR at the very end does not count as an end: an LF may follow. */
size_t em_csv_last_end(const uint8_t *data, size_t size, em_dialect dialect);

/* Return the end of the record that starts at `start`, its line end included, or 0 when `data` ends
 * before it does. */
size_t em_csv_next_end(const uint8_t *data, size_t start, size_t size, em_dialect dialect);

/* Fields to remove from records; the other fields keep their bytes as they are. */
typedef struct {
    em_dialect dialect;
    const uint32_t *dropped; /* indices of fields, ascending */
    size_t count;
} em_cut;

/* Write one record without the dropped fields, at most `size` bytes; return the end of the output.
 */
uint8_t *em_csv_cut(const em_cut *cut, const uint8_t *line, size_t size, uint8_t *out);

#endif
