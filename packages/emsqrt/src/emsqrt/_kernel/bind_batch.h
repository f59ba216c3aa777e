/* Shared by the parsers that fill columns: their memory, the columns lent to Python, error reports.
 */
#ifndef EMSQRT_BIND_BATCH_H
#define EMSQRT_BIND_BATCH_H

#include "native.h"

#include "csv_fault.h"

typedef struct {
    PyObject *memory; /* a memoryview; the lent columns hold a reference too */
    Py_buffer buffer;
    PyObject *lent; /* the Columns that the last call returned */
} batch_memory;

/* Hold `memory` and create a column for each type name; -1 with an exception set. */
int batch_open(batch_memory *held, em_batch *batch, PyObject *memory, PyObject *types);
void batch_close(batch_memory *held, em_batch *batch);

/* Return (Columns, next). The Columns keep `block` alive, and become empty when the batch is
 * reused. */
PyObject *batch_lend(batch_memory *held, em_batch *batch, Py_buffer *block, size_t next);

/* Empty the columns of the last call and release their block. */
void batch_reclaim(batch_memory *held);

/* Read the policy "fail", "null" or "skip"; -1 with an exception set. */
int reading_policy(em_reading *reading, const char *text);

/* Raise RecordFault for the reading's fault, whose offsets refer to `data`. */
void reading_raise(const em_reading *reading, const uint8_t *data);

/* Return the counter `records` (0), `nulled` (1) or `skipped` (2). */
PyObject *reading_counter(const em_reading *reading, uintptr_t which);

/* Return [(offset, size, field, reason), …] of the records that the last call skipped. */
PyObject *reading_skipped(const em_reading *reading);

/* Return why `block` cannot be parsed from `start`, or NULL when it can. */
const char *block_refused(const Py_buffer *block, Py_ssize_t start, bool busy);

/* Whether another thread is reading the columns of the last call. */
bool batch_is_read(const batch_memory *held);

#endif
