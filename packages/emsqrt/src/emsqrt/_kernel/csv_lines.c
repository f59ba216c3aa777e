/* Rewrite records: unchanged, or a selection of their fields in the output's dialect. */
#include <string.h>

#include "csv_write.h"

/* Return the end of the field that starts at `at`: its delimiter, or `size`. */
static inline size_t field_end(const uint8_t *line, size_t at, size_t size, em_dialect dialect) {
    if (at < size && line[at] == dialect.quote) {
        do {
            const uint8_t *found =
                at + 1 < size ? memchr(line + at + 1, dialect.quote, size - at - 1) : NULL;
            at = found == NULL ? size : (size_t)(found - line) + 1;
        } while (at < size && line[at] == dialect.quote);
    }
    const uint8_t *found = at < size ? memchr(line + at, dialect.delimiter, size - at) : NULL;
    return found == NULL ? size : (size_t)(found - line);
}

/* Find the fields of one record; return their number; the first `max` are in `spans`. */
static size_t find_fields(const uint8_t *line, size_t size, em_dialect dialect, em_span *spans,
                          size_t max) {
    size_t count = 0;
    for (size_t at = 0;; at++) {
        const size_t first = at;
        at = field_end(line, at, size, dialect);
        if (count < max) {
            spans[count] = (em_span){(uint32_t)first, (uint32_t)(at - first)};
        }
        count++;
        if (at == size) {
            return count;
        }
    }
}

/* Each dropped field is removed with the delimiter after it, the last field with the one before it.
 */
uint8_t *em_csv_cut(const em_cut *cut, const uint8_t *line, size_t size, uint8_t *out) {
    uint8_t *const begin = out;
    size_t at = 0, kept = 0, dropped = 0;
    bool ended = false;
    for (uint32_t field = 0; dropped < cut->count && !ended; field++) {
        const size_t stop = field_end(line, at, size, cut->dialect);
        ended = stop == size;
        const size_t next = ended ? size : stop + 1;
        if (field == cut->dropped[dropped]) {
            memcpy(out, line + kept, at - kept);
            out += at - kept;
            kept = next;
            dropped++;
        }
        at = next;
    }
    if (ended && kept == size && out > begin) {
        return out - 1;
    }
    memcpy(out, line + kept, size - kept);
    return out + (size - kept);
}

/* Write a quoted field: doubled quotes stay doubled, and text after the closing quote moves inside.
 */
static ptrdiff_t write_quoted(const uint8_t *field, size_t field_size, uint8_t quote,
                              uint8_t delimiter, uint8_t *out, size_t size) {
    size_t plain = 0;
    bool special = false, inside = true;
    uint8_t *at = out;
    if (size < 2) {
        return -1;
    }
    *at++ = '"';
    for (size_t i = 1; i < field_size; i++) {
        const uint8_t octet = field[i];
        if (inside && octet == quote) {
            if (i + 1 == field_size || field[i + 1] != quote) {
                inside = false;
                continue;
            }
            i++;
        }
        if ((size_t)(at - out) + 3 > size) {
            return -1;
        }
        special |= octet == delimiter || octet == '"' || octet == '\n' || octet == '\r';
        plain++;
        *at++ = octet;
        if (octet == '"') {
            *at++ = '"';
        }
    }
    if (!special && plain > 0) {
        memmove(out, out + 1, plain);
        return (ptrdiff_t)plain;
    }
    *at++ = '"';
    return at - out;
}

bool em_csv_write_line(const em_csv_writer *writer, const uint8_t *line, size_t line_size,
                       uint8_t *out, size_t size, size_t *written) {
    if (writer->fields == NULL) {
        if (line_size >= size) {
            return false;
        }
        memcpy(out, line, line_size);
        out[line_size] = '\n';
        *written = line_size + 1;
        return true;
    }
    const size_t count =
        find_fields(line, line_size, writer->dialect, writer->spans, writer->record_fields);
    size_t at = 0;
    for (size_t i = 0; i < writer->field_count; i++) {
        const uint32_t index = writer->fields[i];
        em_span span = index < count ? writer->spans[index] : (em_span){0, 0};
        if (span.size == 0 && writer->instead != NULL && writer->instead[i] < count) {
            span = writer->spans[writer->instead[i]];
        }
        const uint8_t *field = line + span.start;
        ptrdiff_t bytes = 0;
        if (span.size > 0 && *field == writer->dialect.quote) {
            bytes = write_quoted(field, span.size, (uint8_t)writer->dialect.quote,
                                 writer->delimiter, out + at, size - at);
        } else if (span.size > 0) {
            bytes = em_csv_write_text(field, span.size, writer->delimiter, out + at, size - at);
        }
        if (bytes < 0 || at + (size_t)bytes >= size) {
            return false;
        }
        at += (size_t)bytes;
        out[at++] = i + 1 < writer->field_count ? writer->delimiter : '\n';
    }
    *written = at;
    return at > 0;
}
