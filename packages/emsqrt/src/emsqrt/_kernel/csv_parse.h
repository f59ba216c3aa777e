/* Records to columns: the fields that are wanted, typed; of the others only that they are there. */
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
    const uint8_t *nulls; /* u8 size and bytes of each text that means NULL, but the empty one */
    size_t nulls_bytes;
    bool empty_is_null;
    bool exact;         /* words for NULL are words in columns of text */
    bool all_quick;     /* every column is, see csv_quick.h */
    const uint8_t *end; /* of what is parsed */
    em_span record;     /* the current one */
    em_reading reading;
} em_csv_parser;

/* Parse records of `data` from `start` into the batch, until that is full, or a record cannot be
 * read (when it is the first, `reading.fault` says why), or `size` is reached. Return where to go
 * on. */
size_t em_csv_parse(em_csv_parser *parser, const uint8_t *data, size_t start, size_t size);

#endif
