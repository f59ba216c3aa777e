/* Handling of records that cannot be parsed, shared by CSV and JSON Lines. */
#ifndef EMSQRT_CSV_FAULT_H
#define EMSQRT_CSV_FAULT_H

#include "csv_batch.h"

enum em_policy { EM_FAIL, EM_NULL, EM_SKIP };

enum em_reason {
    EM_SOUND,
    EM_RAGGED,   /* `field` is how many fields the record has */
    EM_VALUE,    /* the text of `field` is not a value of its type */
    EM_ENCODING, /* the text of `field` is not UTF-8 */
    EM_ROOM,     /* the record alone does not fit the memory */
    EM_SYNTAX,   /* the line is not a JSON object */
};

typedef struct {
    enum em_reason reason;
    em_span record; /* without its line end */
    em_span text;   /* the part that could not be parsed */
    size_t field;
} em_fault;

enum { EM_SKIPPED_MAX = 64 };

typedef struct {
    enum em_policy policy;
    uint64_t records, nulled, skipped;
    uint64_t nulled_now; /* in the current record, which is not counted yet */
    em_fault fault;
    em_fault skipped_now[EM_SKIPPED_MAX];
    size_t skipped_count;
} em_reading;

enum em_outcome { EM_ACCEPTED, EM_FULL, EM_BAD };

/* Begin a batch; false, with the fault set, when not even one row fits the memory. */
bool em_reading_begin(em_reading *reading, em_batch *batch, size_t start);

/* Set NULL for a value that cannot be parsed when the policy allows it, else set the fault. */
enum em_outcome em_reading_invalid(em_reading *reading, em_batch *batch, size_t column,
                                   em_fault fault);

/* Count a record and commit it, or skip it; false when the batch must end before it, as when the
 * list of skipped records is full. */
bool em_reading_commit(em_reading *reading, em_batch *batch, em_span record,
                       enum em_outcome outcome);

/* End the batch. A fault that comes after good rows is dropped here: the next call meets it as its
 * first record and reports it. */
void em_reading_end(em_reading *reading, const em_batch *batch);

#endif
