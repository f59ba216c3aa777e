/* Write columns as CSV, each value as Arrow's casts to text write it. */
#include <string.h>

#include "csv_times.h"
#include "csv_write.h"
#include "numbers.h"

static bool is_special(uint8_t octet, uint8_t delimiter) {
    return octet == delimiter || octet == '"' || octet == '\n' || octet == '\r';
}

/* Whether any of eight bytes is the one that `wanted` repeats eight times. */
static uint64_t has(uint64_t octets, uint8_t wanted) {
    const uint64_t ones = UINT64_C(0x0101010101010101), other = octets ^ (ones * wanted);
    return (other - ones) & ~other & (ones << 7);
}

static bool needs_quotes(const uint8_t *text, size_t size, uint8_t delimiter) {
    size_t at = 0;
    for (; size - at >= 8; at += 8) {
        uint64_t octets;
        memcpy(&octets, text + at, 8);
        if ((has(octets, delimiter) | has(octets, '"') | has(octets, '\n') | has(octets, '\r')) !=
            0) {
            return true;
        }
    }
    for (; at < size; at++) {
        if (is_special(text[at], delimiter)) {
            return true;
        }
    }
    return size == 0;
}

ptrdiff_t em_csv_write_text(const uint8_t *text, size_t text_size, uint8_t delimiter, uint8_t *out,
                            size_t size) {
    if (!needs_quotes(text, text_size, delimiter)) {
        if (text_size > size) {
            return -1;
        }
        memcpy(out, text, text_size); /* not empty: an empty text needs quotes */
        return (ptrdiff_t)text_size;
    }
    size_t quotes = 2;
    for (size_t i = 0; i < text_size; i++) {
        quotes += text[i] == '"';
    }
    if (text_size + quotes > size) {
        return -1;
    }
    uint8_t *at = out;
    *at++ = '"';
    for (size_t i = 0; i < text_size; i++) {
        *at++ = text[i];
        if (text[i] == '"') {
            *at++ = '"';
        }
    }
    *at++ = '"';
    return at - out;
}

ptrdiff_t em_write_base64(const uint8_t *octets, size_t count, uint8_t *out, size_t size) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    if ((count + 2) / 3 > size / 4) {
        return -1;
    }
    uint8_t *at = out;
    for (size_t i = 0; i < count; i += 3, at += 4) {
        const size_t left = count - i;
        const uint32_t three = (uint32_t)octets[i] << 16 |
                               (left > 1 ? (uint32_t)octets[i + 1] << 8 : 0) |
                               (left > 2 ? (uint32_t)octets[i + 2] : 0);
        at[0] = (uint8_t)digits[three >> 18];
        at[1] = (uint8_t)digits[three >> 12 & 63];
        at[2] = (uint8_t)(left > 1 ? digits[three >> 6 & 63] : '=');
        at[3] = (uint8_t)(left > 2 ? digits[three & 63] : '=');
    }
    return at - out;
}

static size_t write_integer(enum em_kind kind, const void *value, uint8_t *out) {
    uint64_t bits = 0;
    const size_t width = em_width(kind);
    em_copy_word(&bits, value, width);
    if (kind >= EM_U8) {
        return em_write_unsigned(bits, out);
    }
    const unsigned unused = 64 - 8 * (unsigned)width;
    const uint64_t sign = UINT64_C(1) << 63 >> unused;
    return em_write_signed((int64_t)((bits ^ sign) - sign), out);
}

size_t em_write_value(const em_type *type, const void *value, uint8_t *out) {
    int64_t ticks;
    int32_t days;
    double wide;
    float narrow;
    switch (type->form) {
    case EM_AS_DATE:
        memcpy(&days, value, sizeof days);
        return em_write_date(days, out);
    case EM_AS_TIME:
        memcpy(&ticks, value, sizeof ticks);
        return em_write_time(ticks, out);
    case EM_AS_TIMESTAMP:
        memcpy(&ticks, value, sizeof ticks);
        return em_write_timestamp(ticks, type->scale, type->zoned, out);
    case EM_AS_DOUBLE:
        memcpy(&wide, value, sizeof wide);
        return em_write_double(wide, out);
    case EM_AS_FLOAT:
        memcpy(&narrow, value, sizeof narrow);
        return em_write_float(narrow, out);
    case EM_AS_DECIMAL:
        return em_write_decimal(value, type->scale, out);
    default:
        return write_integer(type->kind, value, out);
    }
}

static ptrdiff_t write_cell(const em_type *type, uint8_t delimiter, const em_column *column,
                            size_t row, uint8_t *out, size_t size) {
    const size_t at = column->offset + row;
    if (type->form == EM_AS_TEXT || type->form == EM_AS_BYTES) {
        const size_t text_size = (size_t)(column->ends[at + 1] - column->ends[at]);
        const uint8_t *text = text_size == 0 ? NULL : column->values + column->ends[at];
        return type->form == EM_AS_TEXT || text_size == 0
                   ? em_csv_write_text(text, text_size, delimiter, out, size)
                   : em_write_base64(text, text_size, out, size);
    }
    uint8_t cell[EM_CELL_BYTES];
    uint8_t *const to = size < EM_CELL_BYTES ? cell : out;
    size_t bytes;
    if (type->form == EM_AS_BOOL) {
        const bool set = em_bit(column->values, at);
        bytes = set ? 4 : 5;
        memcpy(to, set ? "true" : "false", bytes);
    } else {
        bytes = em_write_value(type, column->values + at * em_width(type->kind), to);
    }
    if (bytes > size) {
        return -1;
    }
    if (to == cell) {
        memcpy(out, cell, bytes);
    }
    return (ptrdiff_t)bytes;
}

/* Write one row; return its bytes, or -1 when it does not fit. */
static ptrdiff_t write_row(const em_type *types, uint8_t delimiter, const em_columns *columns,
                           size_t row, uint8_t *out, size_t size) {
    size_t at = 0;
    for (size_t i = 0; i < columns->column_count; i++) {
        const em_column *column = &columns->columns[i];
        if (em_is_valid(column, row)) {
            const ptrdiff_t bytes =
                write_cell(&types[i], delimiter, column, row, out + at, size - at);
            if (bytes < 0) {
                return -1;
            }
            at += (size_t)bytes;
        }
        if (at == size) {
            return -1;
        }
        out[at++] = delimiter;
    }
    if (columns->column_count == 0) {
        if (size == 0) {
            return -1;
        }
        at++;
    }
    out[at - 1] = '\n';
    return (ptrdiff_t)at;
}

size_t em_csv_format(const em_type *types, uint8_t delimiter, const em_columns *columns,
                     size_t start, const uint8_t *keep, uint8_t *out, size_t size,
                     size_t *written) {
    size_t at = 0, row = start;
    for (; row < columns->row_count; row++) {
        if (keep != NULL && !em_bit(keep, row)) {
            continue;
        }
        const ptrdiff_t bytes = write_row(types, delimiter, columns, row, out + at, size - at);
        if (bytes < 0) {
            break;
        }
        at += (size_t)bytes;
    }
    *written = at;
    return row;
}
