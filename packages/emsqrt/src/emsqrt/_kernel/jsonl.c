/* JSON text: validation (RFC 8259), and its strings. */
#include "jsonl.h"

#include <string.h>

static bool is_blank(uint8_t octet) {
    return octet == ' ' || octet == '\t' || octet == '\n' || octet == '\r';
}

static bool is_digit(uint8_t octet) {
    return (uint8_t)(octet - '0') < 10;
}

void em_json_skip_blanks(em_json *json) {
    while (json->at < json->end && is_blank(*json->at)) {
        json->at++;
    }
}

/* Whether eight bytes contain a quote, a backslash or a control character. */
static bool has_special(uint64_t octets) {
    const uint64_t ones = UINT64_C(0x0101010101010101), high = ones << 7;
    const uint64_t quote = octets ^ (ones * '"'), slash = octets ^ (ones * '\\');
    return ((((quote - ones) & ~quote) | ((slash - ones) & ~slash) |
             ((octets - ones * 0x20) & ~octets)) &
            high) != 0;
}

/* The value of four hexadecimal digits, or -1. */
static int32_t read_hexadecimal(const uint8_t *text) {
    int32_t value = 0;
    for (int i = 0; i < 4; i++) {
        const uint8_t octet = text[i], letter = (uint8_t)((octet | 0x20) - 'a');
        if (!is_digit(octet) && letter > 5) {
            return -1;
        }
        value = value << 4 | (is_digit(octet) ? octet - '0' : letter + 10);
    }
    return value;
}

static bool skip_escape(em_json *json) {
    static const char escapes[] = "\"\\/bfnrt";
    if (json->end - json->at < 2) {
        return false;
    }
    const uint8_t kind = json->at[1];
    json->at += 2;
    if (kind == 'u') {
        if (json->end - json->at < 4 || read_hexadecimal(json->at) < 0) {
            return false;
        }
        json->at += 4;
        return true;
    }
    return kind != 0 && strchr(escapes, kind) != NULL;
}

bool em_json_skip_string(em_json *json) {
    if (json->at == json->end || *json->at != '"') {
        return false;
    }
    json->at++;
    while (json->at < json->end) {
        uint64_t octets;
        while (json->end - json->at >= 8 && (memcpy(&octets, json->at, 8), !has_special(octets))) {
            json->at += 8;
        }
        if (json->at == json->end || *json->at < 0x20) {
            return false;
        }
        if (*json->at == '"') {
            json->at++;
            return true;
        }
        if (*json->at != '\\') {
            json->at++;
        } else if (!skip_escape(json)) {
            return false;
        }
    }
    return false;
}

static bool skip_digits(em_json *json) {
    const uint8_t *const first = json->at;
    while (json->at < json->end && is_digit(*json->at)) {
        json->at++;
    }
    return json->at > first;
}

static bool skip_number(em_json *json) {
    json->at += json->at < json->end && *json->at == '-';
    const uint8_t *const first = json->at;
    if (!skip_digits(json) || (*first == '0' && json->at > first + 1)) {
        return false;
    }
    if (json->at < json->end && *json->at == '.') {
        json->at++;
        if (!skip_digits(json)) {
            return false;
        }
    }
    if (json->at < json->end && (*json->at | 0x20) == 'e') {
        json->at++;
        json->at += json->at < json->end && (*json->at == '+' || *json->at == '-');
        return skip_digits(json);
    }
    return true;
}

static bool skip_word(em_json *json, const char *word) {
    const size_t size = strlen(word);
    if ((size_t)(json->end - json->at) < size || memcmp(json->at, word, size) != 0) {
        return false;
    }
    json->at += size;
    return true;
}

static bool skip_plain(em_json *json) {
    if (json->at == json->end) {
        return false;
    }
    switch (*json->at) {
    case '"':
        return em_json_skip_string(json);
    case 't':
        return skip_word(json, "true");
    case 'f':
        return skip_word(json, "false");
    case 'n':
        return skip_word(json, "null");
    default:
        return skip_number(json);
    }
}

/* Move past a member's key and colon. */
static bool skip_key(em_json *json) {
    em_json_skip_blanks(json);
    if (!em_json_skip_string(json)) {
        return false;
    }
    em_json_skip_blanks(json);
    return json->at < json->end && *json->at++ == ':';
}

bool em_json_skip_value(em_json *json) {
    uint8_t closers[EM_JSON_DEPTH];
    size_t depth = 0;
    for (;;) {
        em_json_skip_blanks(json);
        const uint8_t first = json->at < json->end ? *json->at : 0;
        if (first == '{' || first == '[') {
            const uint8_t closer = first == '{' ? '}' : ']';
            json->at++;
            em_json_skip_blanks(json);
            if (json->at < json->end && *json->at == closer) {
                json->at++;
            } else if (depth == EM_JSON_DEPTH || (first == '{' && !skip_key(json))) {
                return false;
            } else {
                closers[depth++] = closer;
                continue;
            }
        } else if (!skip_plain(json)) {
            return false;
        }
        for (;; depth--) { /* after a value: close what it ends, then read what follows */
            if (depth == 0) {
                return true;
            }
            em_json_skip_blanks(json);
            if (json->at == json->end || *json->at != closers[depth - 1]) {
                break;
            }
            json->at++;
        }
        if (json->at == json->end || *json->at++ != ',' ||
            (closers[depth - 1] == '}' && !skip_key(json))) {
            return false;
        }
    }
}

/* Strings -------------------------------------------------------------------------------------- */

static size_t put_character(uint32_t code, uint8_t *out) {
    if (code < 0x80) {
        out[0] = (uint8_t)code;
        return 1;
    }
    const size_t length = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = length - 1; i > 0; i--) {
        out[i] = (uint8_t)(0x80 | (code & 0x3f));
        code >>= 6;
    }
    out[0] = (uint8_t)((0xf00u >> length & 0xffu) | code);
    return length;
}

/* Read `\uXXXX`, or the two of a surrogate pair, as one character; return the bytes read, 0 for a
 * lone surrogate. */
static size_t read_unicode(const uint8_t *text, size_t size, uint32_t *code) {
    *code = (uint32_t)read_hexadecimal(text + 2);
    if (*code < 0xd800 || *code > 0xdfff) {
        return 6;
    }
    if (*code > 0xdbff || size < 12 || text[6] != '\\' || text[7] != 'u') {
        return 0;
    }
    const uint32_t low = (uint32_t)read_hexadecimal(text + 8);
    if (low < 0xdc00 || low > 0xdfff) {
        return 0;
    }
    *code = 0x10000 + ((*code - 0xd800) << 10) + (low - 0xdc00);
    return 12;
}

ptrdiff_t em_json_decode(const uint8_t *text, size_t size, uint8_t *out) {
    uint8_t *to = out;
    for (size_t at = 0; at < size;) {
        const uint8_t *slash = memchr(text + at, '\\', size - at);
        const size_t plain = slash == NULL ? size - at : (size_t)(slash - text) - at;
        memcpy(to, text + at, plain);
        to += plain;
        at += plain;
        if (slash == NULL) {
            break;
        }
        const uint8_t kind = slash[1];
        if (kind == 'u') {
            uint32_t code;
            const size_t consumed = read_unicode(slash, size - at, &code);
            if (consumed == 0) {
                return -1;
            }
            to += put_character(code, to);
            at += consumed;
        } else {
            *to++ = kind == 'n'   ? '\n'
                    : kind == 't' ? '\t'
                    : kind == 'r' ? '\r'
                    : kind == 'b' ? '\b'
                    : kind == 'f' ? '\f'
                                  : kind;
            at += 2;
        }
    }
    return to - out;
}

/* Return the letter of a character's short escape, or 0. */
static uint8_t short_escape(uint8_t octet) {
    switch (octet) {
    case '"':
    case '\\':
        return octet;
    case '\n':
        return 'n';
    case '\r':
        return 'r';
    case '\t':
        return 't';
    default:
        return 0;
    }
}

/* Whether one of eight bytes is a quote, a backslash or a control character. */
static bool any_escaped(uint64_t octets) {
    const uint64_t ones = UINT64_C(0x0101010101010101), high = ones << 7;
    const uint64_t quote = octets ^ (ones * '"'), slash = octets ^ (ones * '\\');
    return (((quote - ones) & ~quote) | ((slash - ones) & ~slash) |
            ((octets - ones * 0x20) & ~octets)) &
           high;
}

/* Copy text up to the first byte that is escaped; return its place. */
static size_t copy_plain(const uint8_t *text, size_t size, uint8_t *out) {
    size_t at = 0;
    for (; size - at >= 8; at += 8) {
        uint64_t octets;
        memcpy(&octets, text + at, 8);
        if (any_escaped(octets)) {
            break;
        }
        memcpy(out + at, &octets, 8);
    }
    for (; at < size && text[at] >= 0x20 && text[at] != '"' && text[at] != '\\'; at++) {
        out[at] = text[at];
    }
    return at;
}

ptrdiff_t em_json_encode(const uint8_t *text, size_t text_size, uint8_t *out, size_t size) {
    static const char digits[] = "0123456789abcdef";
    size_t at = 0, i = 0;
    for (;;) {
        const size_t left = text_size - i, room = size - at;
        const size_t plain = copy_plain(text + i, left < room ? left : room, out + at);
        at += plain;
        i += plain;
        if (i == text_size) {
            return (ptrdiff_t)at;
        }
        const uint8_t octet = text[i++], letter = short_escape(octet);
        if (size - at < (letter != 0 ? 2 : 6)) {
            return -1;
        }
        out[at++] = '\\';
        if (letter != 0) {
            out[at++] = letter;
        } else {
            memcpy(out + at, "u00", 3);
            out[at + 3] = (uint8_t)digits[octet >> 4];
            out[at + 4] = (uint8_t)digits[octet & 15];
            at += 5;
        }
    }
}
