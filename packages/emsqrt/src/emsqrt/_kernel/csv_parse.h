/* Records to columns: the fields that are wanted, typed; of the others only that they are there. */
#ifndef EMSQRT_CSV_PARSE_H
#define EMSQRT_CSV_PARSE_H

#include "csv.h"
#include "csv_batch.h"

enum em_policy { EM_FAIL, EM_NULL, EM_SKIP };

enum em_reason {
    EM_SOUND,
    EM_RAGGED,   /* `field` is how many fields the record has */
    EM_VALUE,    /* the text of `field` is no value of its type */
    EM_ENCODING, /* the text of `field` is not UTF-8 */
    EM_ROOM,     /* the record alone does not fit into the memory */
};

typedef struct {
    enum em_reason reason;
    em_span record; /* without its line end */
    em_span text;   /* the field as it stands */
    size_t field;
} em_fault;

enum { EM_SKIPPED_MAX = 64 };

typedef struct {
    em_dialect dialect;
    size_t field_count;
    bool check_fields;
    enum em_policy policy;
    em_batch batch;
    uint32_t *fields;     /* for each column its field's index */
    uint32_t *order;      /* the columns in the order of their fields */
    em_span *spans;       /* for each column the current record's field */
    size_t *text_bytes;   /* for each column, room for a long record */
    const uint8_t *nulls; /* u8 size and bytes of each text that means NULL, but the empty one */
    size_t nulls_bytes;
    bool empty_is_null;
    uint64_t records, nulled, skipped;
    uint64_t nulled_now; /* in the current record */
    em_fault fault;
    em_fault skipped_now[EM_SKIPPED_MAX];
    size_t skipped_count;
} em_csv_parser;

/* Parse records of `data` from `start` into the batch, until that is full, or a record cannot be
 * read (when it is the first, `fault` says why), or `size` is reached. Return where to go on. */
size_t em_csv_parse(em_csv_parser *parser, const uint8_t *data, size_t start, size_t size);

#endif
