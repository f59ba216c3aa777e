#include "csv_types.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "csv_times.h"
#include "numbers.h"

static const struct {
    const char *name;
    em_type type;
} plain_types[] = {
    {"Bool", {EM_BOOL, EM_AS_BOOL, 0, 0, false}},
    {"Int8", {EM_I8, EM_AS_INTEGER, 0, 0, false}},
    {"Int16", {EM_I16, EM_AS_INTEGER, 0, 0, false}},
    {"Int32", {EM_I32, EM_AS_INTEGER, 0, 0, false}},
    {"Int64", {EM_I64, EM_AS_INTEGER, 0, 0, false}},
    {"UInt8", {EM_U8, EM_AS_INTEGER, 0, 0, false}},
    {"UInt16", {EM_U16, EM_AS_INTEGER, 0, 0, false}},
    {"UInt32", {EM_U32, EM_AS_INTEGER, 0, 0, false}},
    {"UInt64", {EM_U64, EM_AS_INTEGER, 0, 0, false}},
    {"Float32", {EM_F32, EM_AS_FLOAT, 0, 0, false}},
    {"Float64", {EM_F64, EM_AS_DOUBLE, 0, 0, false}},
    {"Utf8", {EM_TEXT, EM_AS_TEXT, 0, 0, false}},
    {"Binary", {EM_BYTES, EM_AS_BYTES, 0, 0, false}},
    {"Date", {EM_I32, EM_AS_DATE, 0, 0, false}},
    {"Time", {EM_I64, EM_AS_TIME, 0, 0, false}},
    {"Duration", {EM_I64, EM_AS_DURATION, 0, 0, false}},
};

static bool parse_decimal(const char *text, em_type *out) {
    char *end;
    const long precision = strtol(text, &end, 10);
    if (*end != ',') {
        return false;
    }
    const long scale = strtol(end + 1, &end, 10);
    if (strcmp(end, ")") != 0 || precision < 1 || precision > 38 || scale < 0 ||
        scale > precision) {
        return false;
    }
    *out = (em_type){EM_DECIMAL, EM_AS_DECIMAL, (uint8_t)precision, (uint8_t)scale, false};
    return true;
}

static bool parse_timestamp(const char *text, em_type *out) {
    static const char *const units[] = {"s", "ms", "us", "ns"};
    const size_t size = strcspn(text, ",)");
    for (size_t i = 0; i < 4; i++) {
        if (strlen(units[i]) == size && memcmp(text, units[i], size) == 0) {
            *out = (em_type){EM_I64, EM_AS_TIMESTAMP, 0, (uint8_t)(3 * i), text[size] == ','};
            return text[strlen(text) - 1] == ')';
        }
    }
    return false;
}

bool em_parse_type(const char *text, em_type *out) {
    for (size_t i = 0; i < sizeof plain_types / sizeof *plain_types; i++) {
        if (strcmp(text, plain_types[i].name) == 0) {
            *out = plain_types[i].type;
            return true;
        }
    }
    if (strncmp(text, "Decimal(", 8) == 0) {
        return parse_decimal(text + 8, out);
    }
    return strncmp(text, "Timestamp(", 10) == 0 && parse_timestamp(text + 10, out);
}

static bool read_bool(const uint8_t *text, size_t size, uint8_t *out) {
    static const char *const words[] = {"0",     "1",    "false", "true",
                                        "FALSE", "TRUE", "False", "True"};
    for (size_t i = 0; i < 8; i++) {
        if (strlen(words[i]) == size && memcmp(text, words[i], size) == 0) {
            *out = i & 1;
            return true;
        }
    }
    return false;
}

static inline bool is_blank(uint8_t octet) {
    return octet == ' ' || octet == '\t';
}

void em_make_exact(em_type *type) {
    if (type->form == EM_AS_INTEGER) {
        type->form = EM_AS_EXACT_INTEGER;
    } else if (type->form == EM_AS_DOUBLE) {
        type->form = EM_AS_EXACT_DOUBLE;
    }
}

/* Return the end of the digits that start at `at`. */
static size_t digits(const uint8_t *text, size_t at, size_t size) {
    while (at < size && text[at] >= '0' && text[at] <= '9') {
        at++;
    }
    return at;
}

/* Return the end of a whole number without leading zeros, 0 when there is none. */
static size_t whole_number(const uint8_t *text, size_t size) {
    const size_t first = size > 0 && *text == '-', end = digits(text, first, size);
    const bool padded = end > first + 1 && text[first] == '0';
    return end == first || padded ? 0 : end;
}

static bool read_exact_integer(const uint8_t *text, size_t size, enum em_kind kind, void *out) {
    const bool minus_zero = size == 2 && text[0] == '-' && text[1] == '0';
    return size > 0 && whole_number(text, size) == size && !minus_zero &&
           em_read_integer(text, size, kind, out);
}

static bool read_exact_double(const uint8_t *text, size_t size, double *out) {
    enum { WHOLE_DIGITS_MAX = 16 };
    size_t at = whole_number(text, size);
    if (at == 0 || at > WHOLE_DIGITS_MAX) {
        return false;
    }
    if (at < size && text[at] == '.') {
        const size_t end = digits(text, at + 1, size);
        if (end == at + 1) {
            return false;
        }
        at = end;
    }
    if (at < size && (text[at] == 'e' || text[at] == 'E')) {
        at++;
        if (at < size && (text[at] == '-' || text[at] == '+')) {
            at++;
        }
        const size_t end = digits(text, at, size);
        if (end == at) {
            return false;
        }
        at = end;
    }
    return at == size && em_read_double(text, size, out) && isfinite(*out);
}

bool em_read_value(const em_type *type, const uint8_t *text, size_t size, void *out) {
    if (type->form == EM_AS_BOOL) {
        return read_bool(text, size, out);
    }
    if (type->form == EM_AS_TIMESTAMP) {
        return em_read_timestamp(text, size, type->scale, type->zoned, out);
    }
    while (size > 0 && is_blank(*text)) {
        text++, size--;
    }
    while (size > 0 && is_blank(text[size - 1])) {
        size--;
    }
    switch (type->form) {
    case EM_AS_INTEGER:
    case EM_AS_DURATION:
        return em_read_integer(text, size, type->kind, out);
    case EM_AS_EXACT_INTEGER:
        return read_exact_integer(text, size, type->kind, out);
    case EM_AS_EXACT_DOUBLE:
        return read_exact_double(text, size, out);
    case EM_AS_FLOAT:
        return em_read_float(text, size, out);
    case EM_AS_DOUBLE:
        return em_read_double(text, size, out);
    case EM_AS_DECIMAL:
        return em_read_decimal(text, size, type->precision, type->scale, out);
    case EM_AS_DATE:
        return em_read_date(text, size, out);
    case EM_AS_TIME:
        return em_read_time(text, size, out);
    default:
        return false;
    }
}

/* UTF-8 ---------------------------------------------------------------------------------------- */

/* Return the bytes of the UTF-8 sequence that starts at `text`, 0 when it is invalid (Unicode,
 * table 3-7). */
static size_t sequence(const uint8_t *text, size_t size) {
    const uint8_t lead = text[0];
    const size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    if (lead < 0xc2 || lead > 0xf4 || size < length) {
        return 0;
    }
    const uint8_t low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    const uint8_t high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    if (text[1] < low || text[1] > high) {
        return 0;
    }
    for (size_t i = 2; i < length; i++) {
        if ((text[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    return length;
}

/* Whether all bytes are ASCII; the last eight bytes overlap those before, which is faster than byte
 * by byte. */
static bool is_ascii(const uint8_t *text, size_t size) {
    uint64_t seen = 0, word;
    if (size < 8) {
        for (size_t i = 0; i < size; i++) {
            seen |= text[i];
        }
        return (seen & 0x80) == 0;
    }
    for (size_t at = 0; at + 8 < size; at += 8) {
        memcpy(&word, text + at, 8);
        seen |= word;
    }
    memcpy(&word, text + size - 8, 8);
    return ((seen | word) & UINT64_C(0x8080808080808080)) == 0;
}

bool em_is_utf8(const uint8_t *text, size_t size) {
    if (is_ascii(text, size)) {
        return true;
    }
    size_t at = 0;
    while (at < size) {
        const size_t length = text[at] < 0x80 ? 1 : sequence(text + at, size - at);
        if (length == 0) {
            return false;
        }
        at += length;
    }
    return true;
}
