/* The types of columns in text files: how a value is stored, and how its text is parsed. */
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
    EM_AS_EXACT_INTEGER, /* only as it would be printed */
    EM_AS_EXACT_DOUBLE,  /* digits, a fraction, an exponent, and no leading zeros */
};

typedef struct {
    enum em_kind kind;
    enum em_form form;
    uint8_t precision, scale; /* of decimals; for a timestamp `scale` counts fraction digits */
    bool zoned;
} em_type;

/* Parse a type's name, such as `Int64`, `Decimal(12,2)` or `Timestamp(us,Europe/Rome)`. */
bool em_parse_type(const char *text, em_type *out);

static inline bool em_is_text(const em_type *type) {
    return type->form == EM_AS_TEXT || type->form == EM_AS_BYTES;
}

/* Read a non-text value into `out`, which is as wide as the kind (one byte for a boolean). Numbers,
 * days and times may have blanks around them, as in Arrow. False when the text is not a value of
 * the type. */
bool em_read_value(const em_type *type, const uint8_t *text, size_t size, void *out);

/* Accept only plain spellings as numbers: reject `007`, `+1`, `0x1F` and numbers that do not fit
 * the type. */
void em_make_exact(em_type *type);

bool em_is_utf8(const uint8_t *text, size_t size);

#endif
