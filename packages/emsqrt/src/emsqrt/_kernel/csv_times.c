/* Convert between days and the calendar: Howard Hinnant, "chrono-Compatible Low-Level Date
 * Algorithms". */
#include "csv_times.h"

#include <string.h>

#include "numbers.h"

enum { DAY_SECONDS = 86400 };

static const int64_t ticks_of_digits[] = {1,      10,      100,      1000,      10000,
                                          100000, 1000000, 10000000, 100000000, 1000000000};

static int64_t days_of(int64_t year, int64_t month, int64_t day) {
    year -= month <= 2;
    const int64_t era = (year >= 0 ? year : year - 399) / 400, year_of_era = year - era * 400;
    const int64_t day_of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
    const int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100;
    return era * 146097 + day_of_era + day_of_year - 719468;
}

/* Read `count` digits, or return -1. */
static int read_digits(const uint8_t *text, int count) {
    int value = 0;
    for (int i = 0; i < count; i++) {
        const uint8_t digit = (uint8_t)(text[i] - '0');
        if (digit > 9) {
            return -1;
        }
        value = value * 10 + digit;
    }
    return value;
}

static bool read_day(const uint8_t *text, int64_t *days) {
    static const uint8_t lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    const int year = read_digits(text, 4), month = read_digits(text + 5, 2);
    const int day = read_digits(text + 8, 2);
    if (year < 0 || month < 1 || month > 12 || day < 1 || text[4] != '-' || text[7] != '-') {
        return false;
    }
    const bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    if (day > lengths[month - 1] + (month == 2 && leap)) {
        return false;
    }
    *days = days_of(year, month, day);
    return true;
}

bool em_read_date(const uint8_t *text, size_t size, int32_t *out) {
    int64_t days;
    if (size != 10 || !read_day(text, &days)) {
        return false;
    }
    *out = (int32_t)days;
    return true;
}

/* Read `hh`, `hh:mm` or `hh:mm:ss` as seconds; `size` is 2, 5 or 8. */
static bool read_clock(const uint8_t *text, size_t size, int64_t *seconds) {
    const int hour = read_digits(text, 2);
    const int minute = size > 2 ? read_digits(text + 3, 2) : 0;
    const int second = size > 5 ? read_digits(text + 6, 2) : 0;
    if (hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 59 ||
        (size > 2 && text[2] != ':') || (size > 5 && text[5] != ':')) {
        return false;
    }
    *seconds = hour * 3600 + minute * 60 + second;
    return true;
}

/* Read a fraction as ticks; at most `digits` digits fit. */
static bool read_fraction(const uint8_t *text, size_t size, int digits, int64_t *ticks) {
    if (size > (size_t)digits) {
        return false;
    }
    const int value = read_digits(text, (int)size);
    *ticks = value * ticks_of_digits[digits - (int)size];
    return value >= 0;
}

bool em_read_time(const uint8_t *text, size_t size, int64_t *out) {
    int64_t seconds, ticks = 0;
    if ((size != 5 && size < 8) || !read_clock(text, size < 8 ? size : 8, &seconds)) {
        return false;
    }
    if (size > 8 && (text[8] != '.' || !read_fraction(text + 9, size - 9, 6, &ticks))) {
        return false;
    }
    *out = seconds * 1000000 + ticks;
    return true;
}

/* Read the zone at the end of `text`, after its first ten bytes, and shorten `size` by it; its
 * offset from UTC in seconds, east positive. */
static bool read_zone(const uint8_t *text, size_t *size, int64_t *seconds) {
    const uint8_t *const end = text + *size;
    *seconds = 0;
    if (*size < 13) {
        return false;
    }
    if (end[-1] == 'Z') {
        *size -= 1;
        return true;
    }
    for (size_t bytes = 3; bytes <= 6; bytes++) {
        const uint8_t sign = end[-(ptrdiff_t)bytes];
        if (sign != '+' && sign != '-') {
            continue;
        }
        const uint8_t *const zone = end - bytes + 1;
        const int hours = read_digits(zone, 2);
        const int minutes = bytes == 3 ? 0 : read_digits(end - 2, 2);
        if (bytes == 4 || (bytes == 6 && zone[2] != ':') || hours < 0 || hours > 23 ||
            minutes < 0 || minutes > 59) {
            return false;
        }
        *seconds = (hours * 3600 + minutes * 60) * (sign == '-' ? -1 : 1);
        *size -= bytes;
        return true;
    }
    return false;
}

bool em_read_timestamp(const uint8_t *text, size_t size, int digits, bool zoned, int64_t *out) {
    int64_t days, east = 0, seconds = 0, ticks = 0;
    if (size < 10 || !read_day(text, &days) || (zoned && !read_zone(text, &size, &east)) ||
        (zoned && size <= 10)) {
        return false;
    }
    if (size > 10) {
        const size_t clock = size - 11;
        if ((text[10] != ' ' && text[10] != 'T') ||
            (clock != 2 && clock != 5 && (clock < 8 || clock == 9)) ||
            !read_clock(text + 11, clock < 8 ? clock : 8, &seconds)) {
            return false;
        }
        if (clock > 8 &&
            (text[19] != '.' || !read_fraction(text + 20, clock - 9, digits, &ticks))) {
            return false;
        }
    }
    seconds += days * DAY_SECONDS - east;
    if (seconds < 0 && ticks > 0) {
        /* Of the least nanoseconds of 64 bits, the whole second below has no place in 64 bits.
         * Arrow refuses these, although it writes them. */
        seconds += 1;
        ticks -= ticks_of_digits[digits];
    }
    return !__builtin_mul_overflow(seconds, ticks_of_digits[digits], &seconds) &&
           !__builtin_add_overflow(seconds, ticks, out);
}

/* To text ------------------------------------------------------------------------------------- */

static size_t write_out_of_range(int64_t value, uint8_t *out) {
    static const char words[] = "<value out of range: ";
    memcpy(out, words, sizeof words - 1);
    const size_t size = sizeof words - 1 + em_write_signed(value, out + sizeof words - 1);
    out[size] = '>';
    return size + 1;
}

/* Write a day, with as many digits as its year needs. */
static size_t write_day(int64_t days, uint8_t *out) {
    days += 719468;
    const int64_t era = (days >= 0 ? days : days - 146096) / 146097, of_era = days - era * 146097;
    const int64_t year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    const int64_t of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    const int64_t march = (5 * of_year + 2) / 153;
    const int64_t month = march < 10 ? march + 3 : march - 9;
    const int64_t year = year_of_era + era * 400 + (month <= 2);
    uint8_t *at = out;
    *at = '-';
    at += year < 0;
    const uint64_t shown = (uint64_t)(year < 0 ? -year : year);
    if (shown > 9999) {
        at += em_write_unsigned(shown, at);
    } else {
        em_write_digits(shown, 4, at);
        at += 4;
    }
    *at++ = '-';
    em_write_digits((uint64_t)month, 2, at);
    at[2] = '-';
    em_write_digits((uint64_t)(of_year - (153 * march + 2) / 5 + 1), 2, at + 3);
    return (size_t)(at - out) + 5;
}

static void write_clock(int64_t seconds, uint8_t *out) {
    em_write_digits((uint64_t)(seconds / 3600), 2, out);
    out[2] = ':';
    em_write_digits((uint64_t)(seconds / 60 % 60), 2, out + 3);
    out[5] = ':';
    em_write_digits((uint64_t)(seconds % 60), 2, out + 6);
}

size_t em_write_date(int32_t days, uint8_t *out) {
    return write_day(days, out);
}

size_t em_write_time(int64_t microseconds, uint8_t *out) {
    if (microseconds < 0 || microseconds >= INT64_C(1000000) * DAY_SECONDS) {
        return write_out_of_range(microseconds, out);
    }
    write_clock(microseconds / 1000000, out);
    out[8] = '.';
    em_write_digits((uint64_t)(microseconds % 1000000), 6, out + 9);
    return 15;
}

static int64_t floor_divided(int64_t value, int64_t divisor) {
    return value / divisor - (value % divisor < 0);
}

/* Not the value less a multiple of the divisor, which overflows for the least value. */
static int64_t floor_remainder(int64_t value, int64_t divisor) {
    const int64_t rest = value % divisor;
    return rest < 0 ? rest + divisor : rest;
}

size_t em_write_timestamp(int64_t ticks, int digits, bool zoned, uint8_t *out) {
    const int64_t unit = ticks_of_digits[digits], seconds = floor_divided(ticks, unit);
    const int64_t rest = floor_remainder(ticks, unit);
    size_t size = write_day(floor_divided(seconds, DAY_SECONDS), out);
    out[size] = ' ';
    write_clock(floor_remainder(seconds, DAY_SECONDS), out + size + 1);
    size += 9;
    if (rest != 0) {
        out[size] = '.';
        em_write_digits((uint64_t)rest, digits, out + size + 1);
        size += 1 + (size_t)digits;
    }
    out[size] = 'Z';
    return size + zoned;
}
