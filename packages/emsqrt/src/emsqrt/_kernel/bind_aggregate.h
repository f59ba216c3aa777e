/* Shared by the bindings of aggregates: key columns and state parts read from Python tuples. */
#ifndef EMSQRT_BIND_AGGREGATE_H
#define EMSQRT_BIND_AGGREGATE_H

#include "native.h"

#include "combine.h"
#include "keys.h"
#include "states.h"

typedef struct {
    em_key_spec spec;
    em_key_part *parts;
    enum em_kind *kinds;
} parsed_keys;

/* Read [(column, kind, descending, nulls_first), …]; -1 with an exception set. */
int parse_keys(PyObject *source, parsed_keys *keys);
/* Read [(op, column, kind, param), …] and place the states in a record; -1 with an exception set.
 */
int parse_parts(PyObject *source, em_layout *layout);
void release_keys(parsed_keys *keys);
void release_parts(em_layout *layout);

/* Check that the columns have the kinds that keys and parts read; -1 with an exception set. */
int check_columns(const em_columns *columns, const parsed_keys *keys, const em_layout *layout);

/* Set the exception for a fault of a combiner or fold; always -1. */
int raise_combine_fault(enum em_combine_fault fault);

/* Parse the arguments (rows, start, out, last), call `run`, and return (consumed, written, rows).
 */
typedef em_progress (*run_rows)(void *state, const uint8_t *rows, size_t bytes, bool last,
                                uint8_t *out, size_t out_bytes);
PyObject *run_over(PyObject *arguments, run_rows run, void *state,
                   const enum em_combine_fault *fault);

static inline void free_object(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    const freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

static inline void *new_object(PyTypeObject *type) {
    const allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    return allocate(type, 0);
}

#endif
