#include "csv_parse.h"

#include <string.h>

#include "csv_index.h"
#include "csv_quick.h"

enum { SCRATCH_BYTES = 512 };

/* Copy a quoted field without its quotes: doubled quotes become single, and text after the closing
 * quote belongs to the field. Return the bytes written, at most `size`. */
static size_t unquote(const uint8_t *field, size_t size, uint8_t quote, uint8_t *out) {
    size_t at = 1, written = 0;
    while (at < size) {
        const uint8_t *found = memchr(field + at, quote, size - at);
        const size_t end = found == NULL ? size : (size_t)(found - field);
        memcpy(out + written, field + at, end - at);
        written += end - at;
        at = end + 1;
        if (at < size && field[at] == quote) {
            out[written++] = quote;
            at++;
        } else {
            break;
        }
    }
    if (at < size) {
        memcpy(out + written, field + at, size - at);
        written += size - at;
    }
    return written;
}

static bool is_plainly_quoted(const uint8_t *field, size_t size, uint8_t quote) {
    return size >= 2 && field[size - 1] == quote && memchr(field + 1, quote, size - 2) == NULL;
}

static bool is_null(const em_csv_parser *parser, const uint8_t *text, size_t size) {
    if (size == 0) {
        return parser->empty_is_null;
    }
    const uint8_t *const nulls = parser->nulls;
    for (size_t at = 0; at < parser->nulls_bytes; at += 1 + (size_t)nulls[at]) {
        if (nulls[at] == size && memcmp(nulls + at + 1, text, size) == 0) {
            return true;
        }
    }
    return false;
}

/* Find the columns that the quick path may read. It accepts only fields that begin with a minus or
 * a digit and end with a digit, so no such byte may be the quote or the end of a text for NULL. */
static void find_quick_columns(em_csv_parser *parser) {
    const uint8_t *const nulls = parser->nulls;
    const int quote = parser->dialect.quote;
    bool quick = !(quote == '-' || (quote >= '0' && quote <= '9'));
    for (size_t at = 0; at < parser->nulls_bytes; at += 1 + (size_t)nulls[at]) {
        const uint8_t last = nulls[at + nulls[at]];
        quick &= last < '0' || last > '9';
    }
    parser->all_quick = true;
    for (size_t i = 0; i < parser->batch.column_count; i++) {
        em_building *column = &parser->batch.columns[i];
        column->quick = quick && em_is_quick(&column->type);
        parser->all_quick &= column->quick;
    }
}

static enum em_outcome not_a_value(em_csv_parser *parser, size_t column, enum em_reason reason) {
    const em_fault fault = {.reason = reason,
                            .record = parser->record,
                            .text = parser->spans[column],
                            .field = parser->fields[column]};
    return em_reading_invalid(&parser->reading, &parser->batch, column, fault);
}

static enum em_outcome store_text(em_csv_parser *parser, size_t column, const uint8_t *field,
                                  size_t size, bool quoted) {
    em_batch *batch = &parser->batch;
    const uint8_t quote = (uint8_t)parser->dialect.quote;
    const bool null =
        parser->exact ? size == 0 && parser->empty_is_null : is_null(parser, field, size);
    if (!quoted && null) {
        em_batch_null(batch, column);
        return EM_ACCEPTED;
    }
    if (quoted && is_plainly_quoted(field, size, quote)) {
        field++, size -= 2;
        quoted = false;
    }
    uint8_t *out = em_batch_reserve(batch, column, size);
    if (out == NULL) {
        return EM_FULL;
    }
    if (quoted) {
        size = unquote(field, size, quote, out);
    } else if (size > 0) {
        memcpy(out, field, size);
    }
    if (batch->columns[column].type.form == EM_AS_TEXT && !em_is_utf8(out, size)) {
        return not_a_value(parser, column, EM_ENCODING);
    }
    em_batch_text(batch, column, size);
    return EM_ACCEPTED;
}

static enum em_outcome store_value(em_csv_parser *parser, size_t column, const uint8_t *field,
                                   size_t size, bool quoted) {
    uint8_t scratch[SCRATCH_BYTES];
    uint64_t value[2];
    em_batch *batch = &parser->batch;
    const em_building *building = &batch->columns[column];
    if (building->quick && parser->end - field >= EM_QUICK_READ &&
        em_quick_read(&building->type, field, size, (uint8_t *)value)) {
        em_batch_fixed(batch, column, value);
        return EM_ACCEPTED;
    }
    const uint8_t quote = (uint8_t)parser->dialect.quote;
    if (quoted && is_plainly_quoted(field, size, quote)) {
        field++, size -= 2;
    } else if (quoted && size > sizeof scratch) {
        return not_a_value(parser, column, EM_VALUE);
    } else if (quoted) {
        size = unquote(field, size, quote, scratch);
        field = scratch;
    }
    if (quoted ? size == 0 && parser->empty_is_null : is_null(parser, field, size)) {
        em_batch_null(batch, column);
        return EM_ACCEPTED;
    }
    if (!em_read_value(&building->type, field, size, value)) {
        return not_a_value(parser, column, EM_VALUE);
    }
    em_batch_fixed(batch, column, value);
    return EM_ACCEPTED;
}

/* Store the fields in `spans` as the next row. */
static enum em_outcome store_fields(em_csv_parser *parser, const uint8_t *data) {
    em_batch *batch = &parser->batch;
    parser->reading.nulled_now = 0;
    enum em_outcome outcome = EM_ACCEPTED;
    for (size_t column = 0; column < batch->column_count && outcome == EM_ACCEPTED; column++) {
        const em_span span = parser->spans[column];
        const uint8_t *field = data + span.start;
        const bool quoted = span.size > 0 && *field == parser->dialect.quote;
        if (span.start == UINT32_MAX) {
            outcome = not_a_value(parser, column, EM_RAGGED);
        } else if (em_is_text(&batch->columns[column].type)) {
            outcome = store_text(parser, column, field, span.size, quoted);
        } else {
            outcome = store_value(parser, column, field, span.size, quoted);
        }
    }
    return outcome;
}

/* Store them again, alone in a batch that is divided to fit them. */
static enum em_outcome store_long_record(em_csv_parser *parser, const uint8_t *data) {
    em_batch *batch = &parser->batch;
    for (size_t column = 0; column < batch->column_count; column++) {
        const em_span span = parser->spans[column];
        parser->text_bytes[column] = span.start == UINT32_MAX ? 0 : span.size;
    }
    if (!em_batch_begin_long(batch, parser->text_bytes)) {
        parser->reading.fault = (em_fault){
            .reason = EM_ROOM, .record = parser->record, .text = {parser->record.start, 0}};
        return EM_BAD;
    }
    return store_fields(parser, data);
}

/* Store, skip or report a record with `count` fields; false when the batch ends before it. */
static bool commit_record(em_csv_parser *parser, const uint8_t *data, em_span record,
                          size_t count) {
    if (count == 1 && record.size == 0 && parser->field_count > 1) {
        return true; /* an empty line */
    }
    em_batch *batch = &parser->batch;
    em_reading *reading = &parser->reading;
    if (batch->row_count == batch->row_capacity) {
        return false;
    }
    const bool padded = reading->policy == EM_NULL && count < parser->field_count;
    enum em_outcome outcome = EM_BAD;
    parser->record = record;
    reading->fault = (em_fault){.reason = EM_RAGGED};
    if (count == parser->field_count || !parser->check_fields || padded) {
        outcome = store_fields(parser, data);
        if (outcome == EM_FULL && batch->row_count == 0) {
            outcome = store_long_record(parser, data);
        }
    }
    if (outcome == EM_BAD && reading->fault.reason == EM_RAGGED) {
        reading->fault = (em_fault){EM_RAGGED, record, record, count};
    } else if (outcome != EM_BAD) {
        reading->fault.reason = EM_SOUND;
    }
    return em_reading_commit(reading, batch, record, outcome);
}

/* Find the wanted fields of one record byte by byte; return the offset of its line end, or `size`.
 */
static size_t scan_record(em_csv_parser *parser, const uint8_t *data, size_t start, size_t size,
                          size_t *field_count) {
    const size_t column_count = parser->batch.column_count;
    size_t at = start, field = 0, next = 0;
    for (;; field++, at++) {
        const size_t first = at;
        if (at < size && data[at] == parser->dialect.quote) {
            const uint8_t quote = (uint8_t)parser->dialect.quote;
            do { /* past the closing quote; after a doubled quote, again */
                const uint8_t *found =
                    at + 1 < size ? memchr(data + at + 1, quote, size - at - 1) : NULL;
                at = found == NULL ? size : (size_t)(found - data) + 1;
            } while (at < size && data[at] == quote);
        }
        while (at < size && data[at] != parser->dialect.delimiter && data[at] != '\n' &&
               data[at] != '\r') {
            at++;
        }
        while (next < column_count && parser->fields[parser->order[next]] == field) {
            parser->spans[parser->order[next++]] =
                (em_span){(uint32_t)first, (uint32_t)(at - first)};
        }
        if (at == size || data[at] != parser->dialect.delimiter) {
            break;
        }
    }
    for (; next < column_count; next++) {
        parser->spans[parser->order[next]] = (em_span){UINT32_MAX, 0};
    }
    *field_count = field + 1;
    return at;
}

/* Set the wanted fields from the marks of one record, the last of which is its line end. */
static void pick_fields(em_csv_parser *parser, size_t start, const uint32_t *marks, size_t count) {
    const size_t column_count = parser->batch.column_count;
    for (size_t column = 0; column < column_count; column++) {
        const size_t field = parser->fields[column];
        if (field >= count) {
            parser->spans[column] = (em_span){UINT32_MAX, 0};
            continue;
        }
        const uint32_t first = field == 0 ? (uint32_t)start : marks[field - 1] + 1;
        parser->spans[column] = (em_span){first, marks[field] - first};
    }
}

/* Return the start of the record after a line end. */
static size_t next_record(const uint8_t *data, size_t at, size_t size) {
    if (at == size) {
        return size;
    }
    return at + 1 + (data[at] == '\r' && at + 1 < size && data[at + 1] == '\n');
}

/* Store the fields of a record straight from its marks, if all of them are plain numbers. False
 * when any is not; the row is then incomplete. */
static bool parse_quickly(em_csv_parser *parser, const uint8_t *data, size_t start,
                          const uint32_t *marks) {
    em_batch *batch = &parser->batch;
    const size_t row = batch->row_count;
    for (size_t i = 0; i < batch->column_count; i++) {
        const em_building *column = &batch->columns[i];
        const size_t field = parser->fields[i];
        const size_t first = field == 0 ? start : (size_t)marks[field - 1] + 1;
        uint8_t *out = column->values + row * (column->type.form == EM_AS_DECIMAL ? 16 : 8);
        if (!em_quick_read(&column->type, data + first, marks[field] - first, out)) {
            return false;
        }
    }
    return true;
}

/* Store the records whose line ends are among the marks; false when the batch ends first. */
static bool parse_indexed(em_csv_parser *parser, const em_csv_index *index, const uint8_t *data,
                          size_t *start, size_t size) {
    const size_t quick_count = parser->all_quick ? parser->field_count : SIZE_MAX;
    size_t first = 0;
    for (size_t line = 0; line < index->line_count; line++) {
        const size_t last = index->line_ends[line], count = last + 1 - first;
        const size_t end = index->marks[last];
        if (count == quick_count && size - end >= EM_QUICK_READ &&
            parser->batch.row_count < parser->batch.row_capacity &&
            parse_quickly(parser, data, *start, index->marks + first)) {
            const em_span record = {(uint32_t)*start, (uint32_t)(end - *start)};
            parser->reading.nulled_now = 0;
            em_reading_commit(&parser->reading, &parser->batch, record, EM_ACCEPTED);
            *start = next_record(data, end, size);
            first = last + 1;
            continue;
        }
        pick_fields(parser, *start, index->marks + first, count);
        if (!commit_record(parser, data, (em_span){(uint32_t)*start, (uint32_t)(end - *start)},
                           count)) {
            return false;
        }
        *start = next_record(data, end, size);
        first = last + 1;
    }
    return true;
}

size_t em_csv_parse(em_csv_parser *parser, const uint8_t *data, size_t start, size_t size) {
    em_csv_index index;
    find_quick_columns(parser);
    parser->end = data + size;
    if (!em_reading_begin(&parser->reading, &parser->batch, start)) {
        return start;
    }
    while (start < size) {
        em_csv_find_marks(&index, data, start, size, parser->dialect);
        if (index.line_count > 0) {
            if (!parse_indexed(parser, &index, data, &start, size)) {
                break;
            }
            continue;
        }
        size_t count;
        const size_t end = scan_record(parser, data, start, size, &count);
        if (!commit_record(parser, data, (em_span){(uint32_t)start, (uint32_t)(end - start)},
                           count)) {
            break;
        }
        start = next_record(data, end, size);
    }
    em_reading_end(&parser->reading, &parser->batch);
    return start;
}
