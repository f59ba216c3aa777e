/* CSV as the engine reads it: RFC 4180 with the liberties of Python's `csv` and of Arrow.
 *
 * A quote opens a quoted field only at the field's start, a doubled quote inside it is a literal,
 * anything after the closing quote belongs to the field, and a record ends at LF, CRLF or a lone CR
 * outside quotes.
 */
#ifndef EMSQRT_CSV_H
#define EMSQRT_CSV_H

#include "columns.h"

typedef struct {
    uint8_t delimiter;
    int16_t quote; /* -1: nothing is quoted */
} em_dialect;

/* Return the end of the last complete record of `data`, which starts at a record, or 0. A CR at the
 * very end is not yet an end: an LF may follow. */
size_t em_csv_last_end(const uint8_t *data, size_t size, em_dialect dialect);

/* Return the end of the record that starts at `start`, its line end included, or 0 when it has none
 * before `size`. */
size_t em_csv_next_end(const uint8_t *data, size_t start, size_t size, em_dialect dialect);

/* Records without some of their fields; what is left stays as it is spelled. */
typedef struct {
    em_dialect dialect;
    const uint32_t *dropped; /* indices of fields, ascending */
    size_t count;
} em_cut;

/* Write one record without them; return the end of what was written, `size` bytes at most. */
uint8_t *em_csv_cut(const em_cut *cut, const uint8_t *line, size_t size, uint8_t *out);

#endif
