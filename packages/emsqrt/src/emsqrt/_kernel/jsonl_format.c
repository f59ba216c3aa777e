/* Write columns as one JSON object per line, or as one array per row: integers bare, decimals and
 * values without a JSON number as strings, instants with a T, bytes in base64. In arrays, for readers
 * whose only numbers are doubles, integers beyond 2^53 are strings too. */
#include <math.h>
#include <string.h>

#include "csv_write.h"
#include "jsonl.h"

static ptrdiff_t write_string(const em_type *type, const em_column *column, size_t at, uint8_t *out,
                              size_t size) {
    const size_t text_size = (size_t)(column->ends[at + 1] - column->ends[at]);
    const uint8_t *text = text_size == 0 ? NULL : column->values + column->ends[at];
    if (size < 2) {
        return -1;
    }
    const ptrdiff_t bytes = type->form == EM_AS_TEXT
                                ? em_json_encode(text, text_size, out + 1, size - 2)
                                : em_write_base64(text, text_size, out + 1, size - 2);
    if (bytes < 0) {
        return -1;
    }
    out[0] = '"';
    out[bytes + 1] = '"';
    return bytes + 2;
}

static double float_of(const em_type *type, const uint8_t *value) {
    float narrow;
    double wide = 0;
    if (type->form == EM_AS_FLOAT) {
        memcpy(&narrow, value, sizeof narrow);
        wide = (double)narrow;
    } else if (type->form == EM_AS_DOUBLE) {
        memcpy(&wide, value, sizeof wide);
    }
    return wide;
}

/* Whether a double holds this integer and both its neighbours. */
static bool is_exact_double(const em_type *type, const uint8_t *value) {
    const int64_t most = (INT64_C(1) << 53) - 1;
    int64_t number;
    if (em_width(type->kind) < sizeof number) {
        return true;
    }
    memcpy(&number, value, sizeof number);
    /* An unsigned one with the highest bit set is negative here, and beyond too. */
    return number <= most && number >= (type->kind == EM_U64 ? 0 : -most);
}

/* Write a non-text value to `cell`, which has room for it. */
static size_t write_plain(const em_type *type, const uint8_t *value, bool exact, uint8_t *cell) {
    const bool whole = type->form == EM_AS_INTEGER || type->form == EM_AS_DURATION;
    if (whole && (!exact || is_exact_double(type, value))) {
        return em_write_value(type, value, cell);
    }
    const double number = float_of(type, value);
    if (!isfinite(number)) {
        const char *name = isnan(number) ? "\"NaN\""
                           : number > 0  ? "\"Infinity\""
                                         : "\"-Infinity\"";
        memcpy(cell, name, strlen(name));
        return strlen(name);
    }
    if (type->form == EM_AS_FLOAT || type->form == EM_AS_DOUBLE) {
        return em_write_value(type, value, cell);
    }
    size_t bytes = em_write_value(type, value, cell + 1);
    uint8_t *blank = type->form == EM_AS_TIMESTAMP ? memchr(cell + 1, ' ', bytes) : NULL;
    if (blank != NULL) {
        *blank = 'T';
    }
    cell[0] = '"';
    cell[bytes + 1] = '"';
    return bytes + 2;
}

static ptrdiff_t write_value(const em_type *type, const em_column *column, size_t row, bool exact,
                             uint8_t *out, size_t size) {
    uint8_t room[EM_CELL_BYTES + 2];
    uint8_t *const cell = size < sizeof room ? room : out;
    const size_t at = column->offset + row;
    size_t bytes;
    if (!em_is_valid(column, row)) {
        bytes = 4;
        memcpy(cell, "null", bytes);
    } else if (em_is_text(type)) {
        return write_string(type, column, at, out, size);
    } else if (type->form == EM_AS_BOOL) {
        const bool set = em_bit(column->values, at);
        bytes = set ? 4 : 5;
        memcpy(cell, set ? "true" : "false", bytes);
    } else {
        bytes = write_plain(type, column->values + at * em_width(type->kind), exact, cell);
    }
    if (bytes > size) {
        return -1;
    }
    if (cell == room) {
        memcpy(out, cell, bytes);
    }
    return (ptrdiff_t)bytes;
}

/* Write one row; return its bytes, or -1 when it does not fit. */
static ptrdiff_t write_row(const em_type *types, const em_name *names, const em_columns *columns,
                           size_t row, uint8_t *out, size_t size) {
    const bool array = names == NULL;
    size_t at = 0;
    if (size < 4) { /* an object or array without members, and what is around it */
        return -1;
    }
    if (array) {
        out[at++] = ',';
    }
    out[at++] = array ? '[' : '{';
    for (size_t i = 0; i < columns->column_count; i++) {
        const size_t name_bytes = array ? 0 : names[i].size;
        if (size - at < name_bytes + 1) {
            return -1;
        }
        if (i > 0) {
            out[at++] = ',';
        }
        if (!array) {
            memcpy(out + at, names[i].bytes, name_bytes);
            at += name_bytes;
        }
        const ptrdiff_t bytes =
            write_value(&types[i], &columns->columns[i], row, array, out + at, size - at);
        if (bytes < 0) {
            return -1;
        }
        at += (size_t)bytes;
    }
    if (size - at < 2) {
        return -1;
    }
    out[at++] = array ? ']' : '}';
    if (!array) {
        out[at++] = '\n';
    }
    return (ptrdiff_t)at;
}

size_t em_jsonl_format(const em_type *types, const em_name *names, const em_columns *columns,
                       size_t start, const uint8_t *keep, uint8_t *out, size_t size,
                       size_t *written) {
    size_t at = 0, row = start;
    for (; row < columns->row_count; row++) {
        if (keep != NULL && !em_bit(keep, row)) {
            continue;
        }
        const ptrdiff_t bytes = write_row(types, names, columns, row, out + at, size - at);
        if (bytes < 0) {
            break;
        }
        at += (size_t)bytes;
    }
    *written = at;
    return row;
}
