/* Find the ends of records: by parity of quotes, sixty-four bytes at a time, while every opening
 * quote is at a field's start; a record with a stray quote is read byte by byte. */
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

/* Return the closing quote of the quoted field that opens at `at`, or 0 when there is none. */
static size_t closing_quote(const uint8_t *data, size_t at, size_t size, uint8_t quote) {
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
            at = closing_quote(data, at, size, (uint8_t)dialect.quote);
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

#define SKIP_UNTIL_STRAY skip_until_stray_narrow
#include "csv_split_body.h"
#undef SKIP_UNTIL_STRAY

#ifdef EM_WIDE
#include "csv_wide.h"
#define SKIP_UNTIL_STRAY skip_until_stray_wide
#include "csv_split_body.h"
#endif

static bool skip_until_stray(const uint8_t *data, size_t size, em_dialect dialect, size_t *end) {
#ifdef EM_WIDE
    if (em_is_wide()) {
        return skip_until_stray_wide(data, size, dialect, end);
    }
#endif
    return skip_until_stray_narrow(data, size, dialect, end);
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
