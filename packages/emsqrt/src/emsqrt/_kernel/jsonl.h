/* JSON Lines: objects to columns and back. Each line is validated whole (RFC 8259, UTF-8). */
#ifndef EMSQRT_JSONL_H
#define EMSQRT_JSONL_H

#include "csv_batch.h"
#include "csv_fault.h"

/* JSON text ------------------------------------------------------------------------------------ */

enum { EM_JSON_DEPTH = 512 };

typedef struct {
    const uint8_t *at, *end;
} em_json;

void em_json_skip_blanks(em_json *json);

/* Each of these moves past the token in its name; false when the text is something else. */
bool em_json_skip_string(em_json *json);
bool em_json_skip_value(em_json *json); /* nested no deeper than EM_JSON_DEPTH */

/* Decode the inside of a validated string to UTF-8, which needs no more bytes than the string has;
 * -1 for a lone surrogate. */
ptrdiff_t em_json_decode(const uint8_t *text, size_t size, uint8_t *out);

/* Write UTF-8 as the inside of a string, with the short escapes; -1 when it does not fit. */
ptrdiff_t em_json_encode(const uint8_t *text, size_t text_size, uint8_t *out, size_t size);

/* Objects to columns --------------------------------------------------------------------------- */

typedef struct {
    const uint8_t *bytes;
    size_t size;
} em_name;

typedef struct {
    em_batch batch;
    em_name *names; /* each column's key */
    em_span *spans; /* each column's value in the current line; size 0: absent */
    size_t *text_bytes;
    em_reading reading;
} em_jsonl_parser;

/* Parse lines of `data` from `start` into the batch, until the batch is full, a line cannot be
 * parsed (when it is the first, `reading.fault` says why), or `size` is reached. Return where to
 * continue. */
size_t em_jsonl_parse(em_jsonl_parser *parser, const uint8_t *data, size_t start, size_t size);

/* Columns to objects and arrays ---------------------------------------------------------------- */

/* Write rows as em_csv_format does, one object per line; each of `names` is an encoded `"name":`.
 * When `names` is NULL, each row is an array after a comma, in which integers beyond 2^53 are
 * strings. */
size_t em_jsonl_format(const em_type *types, const em_name *names, const em_columns *columns,
                       size_t start, const uint8_t *keep, uint8_t *out, size_t size,
                       size_t *written);

#endif
