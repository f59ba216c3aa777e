#include "keys.h"

#include <string.h>

enum {
    EM_SHORT_TEXT = 12
}; /* up to this length a byte loop is faster than calls to memchr() and memcpy() */

static inline uint64_t ordered_double(uint64_t word) {
    const uint64_t magnitude = word & 0x7fffffffffffffffu;
    const uint64_t bits = magnitude > 0x7ff0000000000000u ? 0x7ff8000000000000u
                          : magnitude == 0                ? 0
                                                          : word;
    return bits >> 63 ? ~bits : bits | 0x8000000000000000u;
}

/* Map a value of at most eight bytes to an unsigned number of its width that has its order. */
static uint64_t to_ordered(enum em_kind kind, const uint8_t *value) {
    uint64_t word = 0;
    em_copy_word(&word, value, em_width(kind));
    switch (kind) {
    case EM_I8:
        return word ^ 0x80u;
    case EM_I16:
        return word ^ 0x8000u;
    case EM_I32:
        return word ^ 0x80000000u;
    case EM_I64:
        return word ^ 0x8000000000000000u;
    case EM_F32: {
        const uint32_t magnitude = (uint32_t)word & 0x7fffffffu;
        const uint32_t bits = magnitude > 0x7f800000u ? 0x7fc00000u
                              : magnitude == 0        ? 0
                                                      : (uint32_t)word;
        return bits >> 31 ? ~bits & 0xffffffffu : bits | 0x80000000u;
    }
    case EM_F64:
        return ordered_double(word);
    default:
        return word;
    }
}

static uint64_t from_ordered(enum em_kind kind, uint64_t word) {
    switch (kind) {
    case EM_I8:
        return word ^ 0x80u;
    case EM_I16:
        return word ^ 0x8000u;
    case EM_I32:
        return word ^ 0x80000000u;
    case EM_I64:
        return word ^ 0x8000000000000000u;
    case EM_F32:
        return word >> 31 ? word ^ 0x80000000u : ~word & 0xffffffffu;
    case EM_F64:
        return word >> 63 ? word ^ 0x8000000000000000u : ~word;
    default:
        return word;
    }
}

static inline uint8_t *put_big(uint8_t *out, uint64_t word, size_t width) {
    const uint64_t big = __builtin_bswap64(word << (64 - 8 * width));
    switch (width) {
    case 1:
        memcpy(out, &big, 1);
        break;
    case 2:
        memcpy(out, &big, 2);
        break;
    case 4:
        memcpy(out, &big, 4);
        break;
    default:
        memcpy(out, &big, 8);
        break;
    }
    return out + width;
}

static inline uint64_t get_big(const uint8_t *at, size_t width) {
    uint64_t word = 0;
    em_copy_word(&word, at, width);
    return __builtin_bswap64(word) >> (64 - 8 * width);
}

uint8_t *em_key_put_sequence(uint8_t *out, uint64_t sequence) {
    return put_big(out, sequence, EM_SEQUENCE_BYTES);
}

static size_t fixed_width(enum em_kind kind) {
    return kind == EM_BOOL ? 1 : em_width(kind);
}

static inline const uint8_t *text_of(const em_column *column, size_t row, size_t *bytes) {
    const int32_t *ends = column->ends + column->offset + row;
    *bytes = (size_t)(ends[1] - ends[0]);
    return column->values + ends[0];
}

size_t em_key_fixed_bytes(const em_key_spec *spec, const em_columns *columns) {
    size_t bytes = 0;
    for (size_t i = 0; i < spec->count; i++) {
        const enum em_kind kind = columns->columns[spec->parts[i].column].kind;
        if (em_is_text(kind)) {
            return 0;
        }
        bytes += 1 + fixed_width(kind);
    }
    return bytes;
}

static size_t escaped_bytes(const uint8_t *text, size_t bytes) {
    size_t total = bytes + 2;
    const uint8_t *end = text + bytes;
    if (bytes <= EM_SHORT_TEXT) {
        for (; text < end; text++) {
            total += *text == 0;
        }
        return total;
    }
    while (text < end && (text = memchr(text, 0, (size_t)(end - text))) != NULL) {
        total++;
        text++;
    }
    return total;
}

size_t em_key_bytes(const em_key_spec *spec, const em_columns *columns, size_t row) {
    size_t total = 0;
    for (size_t i = 0; i < spec->count; i++) {
        const em_column *column = &columns->columns[spec->parts[i].column];
        total++;
        if (!em_is_text(column->kind)) {
            total += fixed_width(column->kind);
        } else if (em_is_valid(column, row)) {
            size_t bytes;
            const uint8_t *text = text_of(column, row, &bytes);
            total += escaped_bytes(text, bytes);
        }
    }
    return total;
}

static uint8_t *put_text(uint8_t *out, const uint8_t *text, size_t bytes) {
    const uint8_t *end = text + bytes;
    if (bytes <= EM_SHORT_TEXT) {
        for (; text < end; text++) {
            *out++ = *text;
            if (*text == 0) {
                *out++ = 0xff;
            }
        }
    }
    while (text < end) {
        const uint8_t *zero = memchr(text, 0, (size_t)(end - text));
        const size_t span = (size_t)((zero == NULL ? end : zero) - text);
        memcpy(out, text, span);
        out += span;
        text += span;
        if (zero != NULL) {
            *out++ = 0;
            *out++ = 0xff;
            text++;
        }
    }
    *out++ = 0;
    *out++ = 0;
    return out;
}

static uint8_t *put_decimal(uint8_t *out, const uint8_t *value) {
    uint64_t low, high;
    memcpy(&low, value, 8);
    memcpy(&high, value + 8, 8);
    return put_big(put_big(out, high ^ 0x8000000000000000u, 8), low, 8);
}

static inline uint8_t *put_value(uint8_t *out, const em_column *column, size_t row) {
    if (column->kind == EM_I64) { /* the most frequent kind */
        uint64_t word;
        memcpy(&word, column->values + (column->offset + row) * sizeof word, sizeof word);
        return put_big(out, word ^ 0x8000000000000000u, sizeof word);
    }
    const size_t at = column->offset + row, width = em_width(column->kind);
    switch (column->kind) {
    case EM_BOOL:
        *out = em_bit(column->values, at);
        return out + 1;
    case EM_DECIMAL:
        return put_decimal(out, column->values + at * width);
    case EM_TEXT:
    case EM_BYTES: {
        size_t bytes;
        const uint8_t *text = text_of(column, row, &bytes);
        return put_text(out, text, bytes);
    }
    default:
        return put_big(out, to_ordered(column->kind, column->values + at * width), width);
    }
}

uint8_t *em_key_encode(const em_key_spec *spec, const em_columns *columns, size_t row,
                       uint8_t *out) {
    for (size_t i = 0; i < spec->count; i++) {
        const em_key_part *part = &spec->parts[i];
        const em_column *column = &columns->columns[part->column];
        if (!em_is_valid(column, row)) {
            *out++ = part->nulls_first ? EM_NULL_FIRST : EM_NULL_LAST;
            const size_t width = fixed_width(column->kind);
            for (const uint8_t *end = out + width; out < end; out++) {
                *out = 0;
            }
            continue;
        }
        *out++ = EM_VALUE;
        uint8_t *end = put_value(out, column, row);
        if (part->descending) {
            for (uint8_t *byte = out; byte < end; byte++) {
                *byte = (uint8_t)~*byte;
            }
        }
        out = end;
    }
    return out;
}

void em_key_encode_rows(const em_key_spec *spec, const em_columns *columns, size_t start,
                        size_t count, size_t bytes, uint8_t *out) {
    for (size_t i = 0; i < spec->count; i++) {
        const em_key_part *part = &spec->parts[i];
        const em_key_spec alone = {1, part};
        const em_column *column = &columns->columns[part->column];
        const bool plain = column->validity == NULL && !part->descending;
        if (plain && (column->kind == EM_I64 || column->kind == EM_F64)) {
            const uint8_t *from = column->values + (column->offset + start) * sizeof(uint64_t);
            const bool whole = column->kind == EM_I64;
            for (size_t row = 0; row < count; row++) {
                uint64_t word;
                memcpy(&word, from + row * sizeof word, sizeof word);
                word = whole ? word ^ 0x8000000000000000u : ordered_double(word);
                out[row * bytes] = EM_VALUE;
                put_big(out + row * bytes + 1, word, sizeof word);
            }
        } else {
            for (size_t row = 0; row < count; row++) {
                (void)em_key_encode(&alone, columns, start + row, out + row * bytes);
            }
        }
        out += 1 + fixed_width(column->kind);
    }
}

const uint8_t *em_key_skip(const em_key_part *part, enum em_kind kind, const uint8_t *at,
                           const uint8_t *end, size_t *text_bytes) {
    *text_bytes = 0;
    if (at >= end || *at > EM_NULL_LAST) {
        return NULL;
    }
    const bool valid = *at++ == EM_VALUE;
    if (!em_is_text(kind)) {
        const size_t width = fixed_width(kind);
        return (size_t)(end - at) < width ? NULL : at + width;
    }
    if (!valid) {
        return at;
    }
    const uint8_t zero = part->descending ? 0xff : 0;
    for (;;) {
        const uint8_t *found = memchr(at, zero, (size_t)(end - at));
        if (found == NULL || end - found < 2) {
            return NULL;
        }
        *text_bytes += (size_t)(found - at);
        at = found + 2;
        if (found[1] == zero) {
            return at;
        }
        ++*text_bytes; /* an escaped zero */
    }
}

static const uint8_t *decode_text(const em_key_part *part, const uint8_t *at, em_array *array,
                                  size_t row) {
    const uint8_t flip = part->descending ? 0xff : 0;
    uint8_t *const text = em_array_text(array, row);
    uint8_t *out = text;
    for (;; at++) {
        const uint8_t byte = *at ^ flip;
        if (byte == 0) {
            at++;
            if ((*at ^ flip) == 0) {
                break;
            }
        }
        *out++ = byte;
    }
    em_array_end_text(array, row, (size_t)(out - text));
    return at + 1;
}

const uint8_t *em_key_decode(const em_key_part *part, const uint8_t *at, em_array *array,
                             size_t row) {
    const size_t width = fixed_width(array->kind);
    if (*at++ != EM_VALUE) {
        em_array_put_null(array, row);
        return at + width;
    }
    if (em_is_text(array->kind)) {
        return decode_text(part, at, array, row);
    }
    const uint64_t flip = part->descending ? ~(uint64_t)0 : 0;
    uint64_t words[2];
    if (array->kind == EM_DECIMAL) {
        words[1] = get_big(at, 8) ^ flip ^ 0x8000000000000000u;
        words[0] = get_big(at + 8, 8) ^ flip;
    } else {
        const uint64_t mask = width == 8 ? ~(uint64_t)0 : ((uint64_t)1 << (8 * width)) - 1;
        words[0] = from_ordered(array->kind, (get_big(at, width) ^ flip) & mask);
    }
    em_array_put_fixed(array, row, (const uint8_t *)words);
    return at + width;
}

static bool all_have_values(const uint8_t *const *at, size_t count) {
    bool all = true;
    for (size_t r = 0; r < count; r++) {
        all &= *at[r] == EM_VALUE;
    }
    return all;
}

void em_key_decode_rows(const em_key_part *part, const uint8_t **at, em_array *array, size_t first,
                        size_t count) {
    if (array->kind != EM_I64 || !all_have_values(at, count)) {
        for (size_t r = 0; r < count; r++) {
            at[r] = em_key_decode(part, at[r], array, first + r);
        }
        return;
    }
    const uint64_t flip = 0x8000000000000000u ^ (part->descending ? ~(uint64_t)0 : 0);
    uint8_t *out = array->values + first * sizeof flip;
    for (size_t r = 0; r < count; r++) {
        uint64_t word;
        memcpy(&word, at[r] + 1, sizeof word);
        word = __builtin_bswap64(word) ^ flip;
        memcpy(out + r * sizeof word, &word, sizeof word);
        at[r] += 1 + sizeof word;
    }
    em_array_mark_all_valid(array, first, count);
}
