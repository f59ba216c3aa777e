/* Shared by the bindings of rows. */
#ifndef EMSQRT_BIND_ROWS_H
#define EMSQRT_BIND_ROWS_H

#include "native.h"

#include "keys.h"
#include "pack.h"
#include "rows.h"
#include "store.h"

enum { ENDING_BYTES_MAX = 8 };

/* Return the view of a KeySpec whose columns `columns` has, or NULL with an exception set. */
const em_key_spec *key_spec_view(PyObject *object, const em_columns *columns);

/* Read a payload from None, "line" or a sequence of column indices; call release_payload() after
 * use. -1 with an exception set. */
int parse_payload(PyObject *source, const em_columns *columns, em_payload *payload);
void release_payload(em_payload *payload);

static inline int check_row(const em_columns *columns, Py_ssize_t row) {
    if (row >= 0 && (size_t)row < columns->row_count) {
        return 0;
    }
    PyErr_Format(PyExc_ValueError, "no row %zd of %zu", row, columns->row_count);
    return -1;
}

#endif
