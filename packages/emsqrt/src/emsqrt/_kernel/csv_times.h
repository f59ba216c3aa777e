/* Days, times of day and instants from ISO 8601 text and to it, as Arrow's CSV reader has them. */
#ifndef EMSQRT_CSV_TIMES_H
#define EMSQRT_CSV_TIMES_H

#include "columns.h"

/* Days since 1970-01-01 of `YYYY-MM-DD`, years 0000 to 9999. */
bool em_read_date(const uint8_t *text, size_t size, int32_t *out);

/* Microseconds of `hh:mm`, `hh:mm:ss` or `hh:mm:ss.f…`. */
bool em_read_time(const uint8_t *text, size_t size, int64_t *out);

/* Ticks since 1970 of a day, perhaps ` ` or `T` and `hh[:mm[:ss[.f…]]]`. With `zoned` there must be
 * `Z`, `±hh`, `±hhmm` or `±hh:mm` behind a time, without it there must not. `digits` of a fraction
 * fit: 0, 3, 6 or 9 for s, ms, us and ns. */
bool em_read_timestamp(const uint8_t *text, size_t size, int digits, bool zoned, int64_t *out);

/* Each writes to `out`, which has room for EM_TIME_BYTES, and returns the bytes written. */
enum { EM_TIME_BYTES = 64 };
size_t em_write_date(int32_t days, uint8_t *out);
size_t em_write_time(int64_t microseconds, uint8_t *out);
size_t em_write_timestamp(int64_t ticks, int digits, bool zoned, uint8_t *out);

#endif
