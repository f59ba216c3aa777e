/* Read and write days, times of day and instants as ISO 8601 text, as Arrow's CSV reader does. */
#ifndef EMSQRT_CSV_TIMES_H
#define EMSQRT_CSV_TIMES_H

#include "columns.h"

/* Read `YYYY-MM-DD`, years 0000 to 9999, as days since 1970-01-01. */
bool em_read_date(const uint8_t *text, size_t size, int32_t *out);

/* Read `hh:mm`, `hh:mm:ss` or `hh:mm:ss.f…` as microseconds. */
bool em_read_time(const uint8_t *text, size_t size, int64_t *out);

/* Read a day, optionally followed by ` ` or `T` and `hh[:mm[:ss[.f…]]]`, as ticks since 1970. With
 * `zoned` the time must be followed by `Z`, `±hh`, `±hhmm` or `±hh:mm`, without it by none of
 * these. `digits` of a fraction fit: 0, 3, 6 or 9 for s, ms, us and ns. */
bool em_read_timestamp(const uint8_t *text, size_t size, int digits, bool zoned, int64_t *out);

/* Each of these writes to `out`, which has room for EM_TIME_BYTES, and returns the bytes written.
 */
enum { EM_TIME_BYTES = 64 };
size_t em_write_date(int32_t days, uint8_t *out);
size_t em_write_time(int64_t microseconds, uint8_t *out);
size_t em_write_timestamp(int64_t ticks, int digits, bool zoned, uint8_t *out);

#endif
