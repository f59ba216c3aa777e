/* The types of text columns: how a value is laid out, and how its text is read. */
#ifndef EMSQRT_CSV_TYPES_H
#define EMSQRT_CSV_TYPES_H

#include "columns.h"

enum em_form {
    EM_AS_BOOL,
    EM_AS_INTEGER,
    EM_AS_FLOAT,
    EM_AS_DOUBLE,
    EM_AS_DECIMAL,
    EM_AS_TEXT,
    EM_AS_BYTES,
    EM_AS_DATE,
    EM_AS_TIME,
    EM_AS_TIMESTAMP,
    EM_AS_DURATION,
    EM_AS_EXACT_INTEGER, /* as it would be printed */
    EM_AS_EXACT_DOUBLE,  /* digits, a fraction, an exponent, and no zeros in front */
};

typedef struct {
    enum em_kind kind;
    enum em_form form;
    uint8_t precision, scale; /* of decimals; of a timestamp `scale` is its fraction's digits */
    bool zoned;
} em_type;

/* Read a type's text, such as `Int64`, `Decimal(12,2)` or `Timestamp(us,Europe/Rome)`. */
bool em_parse_type(const char *text, em_type *out);

static inline bool em_is_text(const em_type *type) {
    return type->form == EM_AS_TEXT || type->form == EM_AS_BYTES;
}

/* Read a value that is not text into `out`: as wide as its kind, one byte for a bool. Numbers, days
 * and times may have blanks around them, as in Arrow. False when the text is no such value. */
bool em_read_value(const em_type *type, const uint8_t *text, size_t size, void *out);

/* Let numbers be read only from texts that are nothing but numbers: `007`, `+1`, `0x1F` and what
 * does not fit its type are words. */
void em_make_exact(em_type *type);

bool em_is_utf8(const uint8_t *text, size_t size);

#endif
