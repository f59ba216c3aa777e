/* Shared by the bindings of joins. */
#ifndef EMSQRT_BIND_JOIN_H
#define EMSQRT_BIND_JOIN_H

#include "bind_rows.h"

#include "join.h"

/* Release an object's memory buffer, then free the object. */
static inline void release_object(PyObject *object, Py_buffer *memory) {
    PyTypeObject *type = Py_TYPE(object);
    if (memory->obj != NULL) {
        PyBuffer_Release(memory);
    }
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

static inline PyObject *no_rows(void) {
    PyErr_SetString(PyExc_ValueError, "the block does not consist of whole rows");
    return NULL;
}

/* Whether `at` is an offset within the block, its end included. */
static inline bool is_within(Py_ssize_t at, const Py_buffer *block) {
    return at >= 0 && at <= block->len;
}

/* Check that `bits` has a bit for every row that the block can have from `at` on: a row has at
 * least its head's bytes. -1 with an exception set. */
static inline int check_bits(const Py_buffer *block, Py_ssize_t at, const Py_buffer *bits,
                             Py_ssize_t first_bit) {
    const size_t rows = (size_t)(block->len - at) / EM_ROW_HEAD_BYTES;
    if (bits->obj == NULL || (size_t)first_bit + rows <= (size_t)bits->len * 8) {
        return 0;
    }
    PyErr_SetString(PyExc_ValueError, "fewer bits than the block may have rows");
    return -1;
}

#endif
