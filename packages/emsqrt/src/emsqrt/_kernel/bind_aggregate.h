/* What the bindings of aggregates share: parts and keys given as tuples. */
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
/* Read [(op, column, kind, param), …] and place the states; -1 with an exception set. */
int parse_parts(PyObject *source, em_layout *layout);
void release_keys(parsed_keys *keys);
void release_parts(em_layout *layout);

/* Check that the columns are those that keys and parts read. */
int check_columns(const em_columns *columns, const parsed_keys *keys, const em_layout *layout);

/* Raise for a fault of a combiner or fold; -1. */
int raise_combine_fault(enum em_combine_fault fault);

/* Parse (rows, start, out, last) of a run, run it and answer (consumed, written, rows). */
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
