/* What parsers into columns share: the memory they fill, the columns they lent, their complaint. */
#ifndef EMSQRT_BIND_BATCH_H
#define EMSQRT_BIND_BATCH_H

#include "native.h"

#include "csv_batch.h"

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
void batch_take_back(batch_memory *held);

/* Set RecordFault; `text` is what could not be read. */
void raise_record_fault(const char *reason, em_span record, uint64_t row, size_t field,
                        const uint8_t *text, size_t text_size);

#endif
