/* What parsers into columns share: the memory they fill, the columns they lent, their complaint. */
#ifndef EMSQRT_BIND_BATCH_H
#define EMSQRT_BIND_BATCH_H

#include "native.h"

#include "csv_fault.h"

typedef struct {
    PyObject *memory; /* a memoryview, which the lent columns hold too */
    Py_buffer buffer;
    PyObject *lent; /* the columns of the last call */
} batch_memory;

/* Hold `memory` and set up a column for each type's text; -1 with an exception set. */
int batch_open(batch_memory *held, em_batch *batch, PyObject *memory, PyObject *types);
void batch_close(batch_memory *held, em_batch *batch);

/* Return (Columns, next), where the columns hold `block` and empty when the batch is reused. */
PyObject *batch_lend(batch_memory *held, em_batch *batch, Py_buffer *block, size_t next);

/* Empty the columns of the last call and let go of their block. */
void batch_reclaim(batch_memory *held);

/* Read "fail", "null" or "skip"; -1 with an exception set. */
int reading_policy(em_reading *reading, const char *text);

/* Set RecordFault from the reading's fault, whose places are in `data`. */
void reading_raise(const em_reading *reading, const uint8_t *data);

/* Return the counter `records`, `nulled` or `skipped`, by its place among these. */
PyObject *reading_counter(const em_reading *reading, uintptr_t which);

/* Return [(offset, size, field, reason), …] of what the last call left out. */
PyObject *reading_skipped(const em_reading *reading);

/* What is wrong with parsing `block` from `start`, or NULL. */
const char *block_refused(const Py_buffer *block, Py_ssize_t start, bool busy);

/* Whether another thread reads the columns of the last call. */
bool batch_is_read(const batch_memory *held);

#endif
