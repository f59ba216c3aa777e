/* What becomes of records that cannot be read, the same for CSV and JSON Lines. */
#ifndef EMSQRT_CSV_FAULT_H
#define EMSQRT_CSV_FAULT_H

#include "csv_batch.h"

enum em_policy { EM_FAIL, EM_NULL, EM_SKIP };

enum em_reason {
    EM_SOUND,
    EM_RAGGED,   /* `field` is how many fields the record has */
    EM_VALUE,    /* the text of `field` is no value of its type */
    EM_ENCODING, /* the text of `field` is not UTF-8 */
    EM_ROOM,     /* the record alone does not fit into the memory */
    EM_SYNTAX,   /* the line is no JSON object */
};

typedef struct {
    enum em_reason reason;
    em_span record; /* without its line end */
    em_span text;   /* what could not be read */
    size_t field;
} em_fault;

enum { EM_SKIPPED_MAX = 64 };

typedef struct {
    enum em_policy policy;
    uint64_t records, nulled, skipped;
    uint64_t nulled_now; /* in the current record */
    em_fault fault;
    em_fault skipped_now[EM_SKIPPED_MAX];
    size_t skipped_count;
} em_reading;

enum em_outcome { EM_ACCEPTED, EM_FULL, EM_BAD };

/* Begin a batch; false (and the fault set) when the memory has no room for a row. */
bool em_reading_begin(em_reading *reading, em_batch *batch, size_t start);

/* Put NULL for a value that is none, or complain. */
enum em_outcome em_reading_misfit(em_reading *reading, em_batch *batch, size_t column,
                                  em_fault fault);

/* Count a record and commit it, or leave it out; false when the batch ends before it. */
bool em_reading_settle(em_reading *reading, em_batch *batch, em_span record,
                       enum em_outcome outcome);

/* End the batch: a fault behind rows is met again, as the next call's first record. */
void em_reading_end(em_reading *reading, const em_batch *batch);

#endif
