/* Parse CSV records into columns: the wanted fields get a type, the others are only counted. */
#ifndef EMSQRT_CSV_PARSE_H
#define EMSQRT_CSV_PARSE_H

#include "csv.h"
#include "csv_fault.h"

typedef struct {
    em_dialect dialect;
    size_t field_count;
    bool check_fields;
    em_batch batch;
    uint32_t *fields;     /* for each column its field's index */
    uint32_t *order;      /* the columns in the order of their fields */
    em_span *spans;       /* for each column the current record's field */
    size_t *text_bytes;   /* for each column, room for a long record */
    const uint8_t *nulls; /* u8 size and bytes of each non-empty text that means NULL */
    size_t nulls_bytes;
    bool empty_is_null;
    bool exact;         /* in columns of text only an empty field is NULL */
    bool all_quick;     /* every column is quick, see csv_quick.h */
    const uint8_t *end; /* the end of the input block */
    em_span record;     /* the current one */
    em_reading reading;
} em_csv_parser;

/* Parse records of `data` from `start` into the batch, until the batch is full, a record cannot be
 * parsed (when it is the first, `reading.fault` says why), or `size` is reached. Return where to
 * continue. */
size_t em_csv_parse(em_csv_parser *parser, const uint8_t *data, size_t start, size_t size);

#endif
