/* Parse lines into columns: the wanted members of each object get a type, the others are only
 * validated. */
#include <string.h>

#include "jsonl.h"

enum { SCRATCH_BYTES = 512, KEY_BYTES = 6 * 1024 };

static bool is_named(const em_name *name, const uint8_t *key, size_t size) {
    return name->size == size && memcmp(name->bytes, key, size) == 0;
}

/* Return the column that a key names, or the number of columns; the one after `hint` is tried
 * first. */
static size_t find_column(const em_jsonl_parser *parser, const uint8_t *key, size_t size,
                          size_t hint) {
    const size_t count = parser->batch.column_count;
    uint8_t scratch[KEY_BYTES];
    if (memchr(key, '\\', size) != NULL) {
        const ptrdiff_t decoded = size > sizeof scratch ? -1 : em_json_decode(key, size, scratch);
        if (decoded < 0) {
            return count;
        }
        key = scratch;
        size = (size_t)decoded;
    }
    for (size_t i = 0; i < count; i++) {
        const size_t column = hint + i < count ? hint + i : hint + i - count;
        if (is_named(&parser->names[column], key, size)) {
            return column;
        }
    }
    return count;
}

/* Find the wanted members of the object in a line; false when the line is not an object. */
static bool scan_line(em_jsonl_parser *parser, const uint8_t *data, em_span line) {
    const size_t count = parser->batch.column_count;
    em_json json = {data + line.start, data + line.start + line.size};
    memset(parser->spans, 0, count * sizeof *parser->spans);
    em_json_skip_blanks(&json);
    if (json.at == json.end || *json.at++ != '{') {
        return false;
    }
    em_json_skip_blanks(&json);
    bool open = json.at == json.end || *json.at != '}';
    json.at += !open;
    for (size_t hint = 0; open;) {
        em_json_skip_blanks(&json);
        const uint8_t *const key = json.at + 1;
        if (!em_json_skip_string(&json)) {
            return false;
        }
        const size_t key_size = (size_t)(json.at - key) - 1;
        em_json_skip_blanks(&json);
        if (json.at == json.end || *json.at++ != ':') {
            return false;
        }
        em_json_skip_blanks(&json);
        const uint8_t *const value = json.at;
        if (!em_json_skip_value(&json)) {
            return false;
        }
        const size_t column = find_column(parser, key, key_size, hint);
        if (column < count) { /* of members with the same name the last one counts */
            parser->spans[column] =
                (em_span){(uint32_t)(value - data), (uint32_t)(json.at - value)};
            hint = column + 1 < count ? column + 1 : 0;
        }
        em_json_skip_blanks(&json);
        if (json.at == json.end || (*json.at != ',' && *json.at != '}')) {
            return false;
        }
        open = *json.at++ == ',';
    }
    em_json_skip_blanks(&json);
    return json.at == json.end;
}

static enum em_outcome not_a_value(em_jsonl_parser *parser, size_t column, em_span line,
                                   enum em_reason reason) {
    const em_fault fault = {
        .reason = reason, .record = line, .text = parser->spans[column], .field = column};
    return em_reading_invalid(&parser->reading, &parser->batch, column, fault);
}

static int base64_digit(uint8_t octet) {
    const uint8_t letter = (uint8_t)((octet | 0x20) - 'a');
    if (letter < 26) {
        return letter + ((octet & 0x20) != 0 ? 26 : 0);
    }
    return octet >= '0' && octet <= '9' ? octet - '0' + 52
           : octet == '+'               ? 62
           : octet == '/'               ? 63
                                        : -1;
}

/* Decode base64 in place; -1 when it is malformed. */
static ptrdiff_t decode_base64(uint8_t *text, size_t size) {
    if (size % 4 != 0) {
        return -1;
    }
    size_t digits = size;
    while (digits > 0 && size - digits < 2 && text[digits - 1] == '=') {
        digits--;
    }
    uint32_t held = 0;
    size_t written = 0;
    for (size_t i = 0; i < digits; i++) {
        const int digit = base64_digit(text[i]);
        if (digit < 0) {
            return -1;
        }
        held = held << 6 | (uint32_t)digit;
        if (i % 4 != 0) {
            text[written++] = (uint8_t)(held >> (6 - 2 * (i % 4)) & 0xff);
        }
    }
    return (ptrdiff_t)written;
}

/* Copy JSON text without the blanks between its tokens. */
static size_t copy_compact(const uint8_t *text, size_t size, uint8_t *out) {
    em_json json = {text, text + size};
    uint8_t *to = out;
    while (json.at < json.end) {
        const uint8_t *const first = json.at;
        if (*first == '"') {
            em_json_skip_string(&json);
        } else if (*first == ' ' || *first == '\t' || *first == '\r' || *first == '\n') {
            json.at++;
            continue;
        } else {
            json.at++;
        }
        memcpy(to, first, (size_t)(json.at - first));
        to += json.at - first;
    }
    return (size_t)(to - out);
}

static enum em_outcome store_text(em_jsonl_parser *parser, const uint8_t *data, size_t column,
                                  em_span line) {
    em_batch *batch = &parser->batch;
    const em_span span = parser->spans[column];
    const uint8_t *value = data + span.start;
    const bool is_binary = batch->columns[column].type.form == EM_AS_BYTES;
    uint8_t *out = em_batch_reserve(batch, column, span.size);
    if (out == NULL) {
        return EM_FULL;
    }
    if (*value != '"') {
        if (is_binary) {
            return not_a_value(parser, column, line, EM_VALUE);
        }
        em_batch_text(batch, column, copy_compact(value, span.size, out));
        return EM_ACCEPTED;
    }
    ptrdiff_t size = em_json_decode(value + 1, span.size - 2, out);
    if (size < 0) {
        return not_a_value(parser, column, line, EM_ENCODING);
    }
    size = is_binary ? decode_base64(out, (size_t)size) : size;
    if (size < 0) {
        return not_a_value(parser, column, line, EM_VALUE);
    }
    em_batch_text(batch, column, (size_t)size);
    return EM_ACCEPTED;
}

static bool read_value(const em_type *type, const uint8_t *value, size_t size, void *out) {
    uint8_t scratch[SCRATCH_BYTES];
    const bool is_word = *value == 't' || *value == 'f';
    if (is_word || type->form == EM_AS_BOOL) {
        return is_word && type->form == EM_AS_BOOL && em_read_value(type, value, size, out);
    }
    if (*value == '"') {
        const ptrdiff_t decoded =
            size > sizeof scratch ? -1 : em_json_decode(value + 1, size - 2, scratch);
        if (decoded <= 0 || scratch[0] <= ' ' || scratch[decoded - 1] <= ' ') {
            return false;
        }
        return em_read_value(type, scratch, (size_t)decoded, out);
    }
    return em_read_value(type, value, size, out);
}

static enum em_outcome store_members(em_jsonl_parser *parser, const uint8_t *data, em_span line) {
    em_batch *batch = &parser->batch;
    enum em_outcome outcome = EM_ACCEPTED;
    parser->reading.nulled_now = 0;
    for (size_t column = 0; column < batch->column_count && outcome == EM_ACCEPTED; column++) {
        const em_span span = parser->spans[column];
        const em_type *type = &batch->columns[column].type;
        uint64_t value[2];
        if (span.size == 0 || data[span.start] == 'n') {
            em_batch_null(batch, column);
        } else if (em_is_text(type)) {
            outcome = store_text(parser, data, column, line);
        } else if (read_value(type, data + span.start, span.size, value)) {
            em_batch_fixed(batch, column, value);
        } else {
            outcome = not_a_value(parser, column, line, EM_VALUE);
        }
    }
    return outcome;
}

static enum em_outcome store_line(em_jsonl_parser *parser, const uint8_t *data, em_span line) {
    em_batch *batch = &parser->batch;
    em_fault fault = {.record = line, .text = line};
    if (!em_is_utf8(data + line.start, line.size)) {
        fault.reason = EM_ENCODING;
    } else if (!scan_line(parser, data, line)) {
        fault.reason = EM_SYNTAX;
    }
    if (fault.reason != EM_SOUND) {
        parser->reading.fault = fault;
        return EM_BAD;
    }
    const enum em_outcome outcome = store_members(parser, data, line);
    if (outcome != EM_FULL || batch->row_count > 0) {
        return outcome;
    }
    for (size_t column = 0; column < batch->column_count; column++) {
        parser->text_bytes[column] = parser->spans[column].size;
    }
    if (em_batch_begin_long(batch, parser->text_bytes)) {
        return store_members(parser, data, line);
    }
    fault.reason = EM_ROOM;
    parser->reading.fault = fault;
    return EM_BAD;
}

size_t em_jsonl_parse(em_jsonl_parser *parser, const uint8_t *data, size_t start, size_t size) {
    em_batch *batch = &parser->batch;
    if (!em_reading_begin(&parser->reading, batch, start)) {
        return start;
    }
    while (start < size) {
        const uint8_t *found = memchr(data + start, '\n', size - start);
        const size_t end = found == NULL ? size : (size_t)(found - data);
        em_json json = {data + start, data + end};
        em_json_skip_blanks(&json);
        if (json.at < json.end) {
            const size_t bytes = end - start - (data[end - 1] == '\r');
            const em_span line = {(uint32_t)start, (uint32_t)bytes};
            if (batch->row_count == batch->row_capacity ||
                !em_reading_commit(&parser->reading, batch, line, store_line(parser, data, line))) {
                break;
            }
        }
        start = end + (found != NULL);
    }
    em_reading_end(&parser->reading, batch);
    return start;
}
