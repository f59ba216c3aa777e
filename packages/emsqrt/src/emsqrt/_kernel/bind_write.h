/* The arguments of a formatter: columns, the first row, a buffer to fill, and which rows to keep.
 */
#ifndef EMSQRT_BIND_WRITE_H
#define EMSQRT_BIND_WRITE_H

#include "native.h"

#include "csv_types.h"

typedef struct {
    const em_columns *columns;
    size_t start;
    Py_buffer out, keep;
    const uint8_t *kept; /* a bit for each row, or NULL */
} write_request;

/* Read (columns, start, out, keep=None); -1 with an exception set. */
int open_request(PyObject *arguments, write_request *request);
void close_request(write_request *request);

/* Return the types that a list of type names describes (free with PyMem_Free), or NULL with an
 * exception set. */
em_type *types_of(PyObject *texts);

/* Whether the columns have these types; an exception is set when not. */
bool are_of_types(const em_columns *columns, const em_type *types, size_t count);

#endif
