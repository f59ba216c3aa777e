/* Where records end: by parity of quotes, sixty-four bytes at a time, while every opening quote
 * stands at a field's start; a record with a stray quote is read byte by byte. */
#include "csv.h"

#include "csv_marks.h"

static size_t last_line_end(const uint8_t *data, size_t size) {
    for (size_t end = size; end > 0; end--) {
        const uint8_t octet = data[end - 1];
        if (octet == '\n' || (octet == '\r' && end < size)) {
            return end;
        }
    }
    return 0;
}

/* Return where the quoted field that opens at `at` closes, or 0 when it does not. */
static size_t closing(const uint8_t *data, size_t at, size_t size, uint8_t quote) {
    for (at++; at < size; at++) {
        const uint8_t *found = memchr(data + at, quote, size - at);
        if (found == NULL) {
            return 0;
        }
        at = (size_t)(found - data) + 1;
        if (at == size || data[at] != quote) {
            return at;
        }
    }
    return 0;
}

size_t em_csv_next_end(const uint8_t *data, size_t start, size_t size, em_dialect dialect) {
    for (size_t at = start; at < size; at++) {
        if (data[at] == dialect.quote) {
            at = closing(data, at, size, (uint8_t)dialect.quote);
            if (at == 0) {
                return 0;
            }
        }
        while (at < size && data[at] != dialect.delimiter && data[at] != '\n' && data[at] != '\r') {
            at++;
        }
        if (at == size || (data[at] == '\r' && at + 1 == size)) {
            return 0;
        }
        if (data[at] != dialect.delimiter) {
            return at + 1 + (data[at] == '\r' && data[at + 1] == '\n');
        }
    }
    return 0;
}

/* Move on from `*end`, the start of a record, to the last record end before a stray quote. */
static bool skip_until_stray(const uint8_t *data, size_t size, em_dialect dialect, size_t *end) {
    uint64_t inside_before = 0, start_before = 1;
    for (size_t at = *end; at < size; at += 64) {
        const size_t left = size - at;
        const em_chunk chunk = left < 64 ? em_load_rest(data + at, left) : em_load_chunk(data + at);
        const uint64_t live = em_live(left);
        const uint64_t quotes = em_equal(&chunk, (uint8_t)dialect.quote) & live;
        const uint64_t feeds = em_equal(&chunk, '\n') & live;
        uint64_t returns = em_equal(&chunk, '\r') & live;
        const uint64_t marks =
            (em_equal(&chunk, dialect.delimiter) & live) | feeds | returns | quotes;
        const uint64_t inside = em_parity(quotes) ^ (0 - inside_before);
        const uint64_t stray = quotes & inside & ~(marks << 1 | start_before);
        if (left <= 64) {
            returns &= ~(UINT64_C(1) << (left - 1));
        }
        const uint64_t before_stray = stray == 0 ? ~UINT64_C(0) : (stray & (0 - stray)) - 1;
        const uint64_t ends = (feeds | returns) & ~inside & before_stray;
        if (ends != 0) {
            *end = at + 64 - (size_t)__builtin_clzll(ends);
        }
        if (stray != 0) {
            return true;
        }
        inside_before = inside >> 63;
        start_before = marks >> 63;
    }
    return false;
}

size_t em_csv_last_end(const uint8_t *data, size_t size, em_dialect dialect) {
    if (dialect.quote < 0 || memchr(data, dialect.quote, size) == NULL) {
        return last_line_end(data, size);
    }
    size_t end = 0;
    while (skip_until_stray(data, size, dialect, &end)) {
        const size_t next = em_csv_next_end(data, end, size, dialect);
        if (next == 0) {
            break;
        }
        end = next;
    }
    return end;
}
