/* Write columns as one JSON object per line: integers bare, decimals and values without a JSON
 * number as strings, instants with a T, bytes in base64. */
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

/* Write a non-text value to `cell`, which has room for it. */
static size_t write_plain(const em_type *type, const uint8_t *value, uint8_t *cell) {
    const double number = float_of(type, value);
    if (!isfinite(number)) {
        const char *name = isnan(number) ? "\"NaN\""
                           : number > 0  ? "\"Infinity\""
                                         : "\"-Infinity\"";
        memcpy(cell, name, strlen(name));
        return strlen(name);
    }
    const bool bare = type->form == EM_AS_INTEGER || type->form == EM_AS_DURATION ||
                      type->form == EM_AS_FLOAT || type->form == EM_AS_DOUBLE;
    if (bare) {
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

static ptrdiff_t write_value(const em_type *type, const em_column *column, size_t row, uint8_t *out,
                             size_t size) {
    uint8_t cell[EM_CELL_BYTES + 2];
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
        bytes = write_plain(type, column->values + at * em_width(type->kind), cell);
    }
    if (bytes > size) {
        return -1;
    }
    memcpy(out, cell, bytes);
    return (ptrdiff_t)bytes;
}

static ptrdiff_t write_row(const em_type *types, const em_name *names, const em_columns *columns,
                           size_t row, uint8_t *out, size_t size) {
    size_t at = 0;
    for (size_t i = 0; i < columns->column_count; i++) {
        if (size - at < names[i].size + 1) {
            return -1;
        }
        out[at++] = i == 0 ? '{' : ',';
        memcpy(out + at, names[i].bytes, names[i].size);
        at += names[i].size;
        const ptrdiff_t bytes =
            write_value(&types[i], &columns->columns[i], row, out + at, size - at);
        if (bytes < 0) {
            return -1;
        }
        at += (size_t)bytes;
    }
    if (size - at < 3) {
        return -1;
    }
    memcpy(out + at, columns->column_count == 0 ? "{}\n" : "}\n", 3);
    return (ptrdiff_t)at + (columns->column_count == 0 ? 3 : 2);
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
