/* strand._native: the ring's core for Python, on the stable ABI of CPython 3.11.
 *
 * A thin layer: parse the arguments, call the core, build the result. Policy (whom to wait for,
 * which error to raise, how often to check whether a peer is alive) is in Python. The GIL is
 * released only while a wait spins or sleeps, and signals are handled after each nap.
 */
#include "_native.h"

#include <stdatomic.h>
#include <string.h>

#ifndef NATIVE_CFLAGS
#define NATIVE_CFLAGS ""
#endif

/* The build searches the extension for this text to find the extra flags it was compiled with. */
__attribute__((used)) static const char BUILD[] = "NATIVE_CFLAGS=" NATIVE_CFLAGS;

/* ---- shared by the types -------------------------------------------------------------------- */

native_state *state_of(PyTypeObject *type) {
    while (type != NULL && PyType_GetModule(type) == NULL) {
        PyErr_Clear(); /* a Python subclass: ask the type it derives from */
        type = PyType_GetSlot(type, Py_tp_base);
    }
    return type == NULL ? NULL : PyType_GetModuleState(type);
}

PyObject *allocate(PyTypeObject *type) {
    allocfunc make = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    return make(type, 0);
}

void free_object(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

int to_u64(PyObject *value, uint64_t *out) {
    unsigned long long number = PyLong_AsUnsignedLongLong(value);
    if (number == (unsigned long long)-1 && PyErr_Occurred())
        return -1;
    *out = number;
    return 0;
}

PyObject *fail(void *self, int reason, Py_ssize_t position, PyObject *detail) {
    PyObject *field = position < 0 ? Py_NewRef(Py_None) : PyLong_FromSsize_t(position);
    PyObject *answer = field == NULL ? NULL
                                     : PyObject_CallMethod(self, "_fail", "iOO", reason, field,
                                                           detail == NULL ? Py_None : detail);
    Py_XDECREF(field);
    if (answer != NULL) {
        Py_DECREF(answer);
        PyErr_Format(PyExc_RuntimeError, "_fail(%d) raised nothing", reason);
    }
    return NULL;
}

PyObject *fail_number(void *self, int reason, uint64_t detail) {
    PyObject *number = PyLong_FromUnsignedLongLong(detail);
    if (number != NULL)
        fail(self, reason, -1, number);
    Py_XDECREF(number);
    return NULL;
}

static bool is_geometry(const Py_buffer *view, const layout_object *layout,
                        const strand_ring *ring) {
    const uint64_t limit = 0x80000000U;
    const uint64_t records = ring->capacity;
    const uint64_t heap = ring->heap_capacity;
    return (layout->version == 5 || layout->version == 6) && layout->stride >= 4 &&
           layout->stride <= 65536 && records > 0 && records <= limit &&
           (records & (records - 1)) == 0 && heap > 0 && heap <= limit &&
           (heap & (heap - 1)) == 0 && (uintptr_t)view->buf % 8 == 0 &&
           ring->heap_start + heap <= (uint64_t)view->len;
}

int map_ring(PyObject *args, native_state *state, Py_buffer *view, Py_buffer *doorbell,
             layout_object **layout, strand_ring *ring) {
    PyObject *buffer, *compiled, *bell;
    unsigned long long records, heap;
    if (!PyArg_ParseTuple(args, "OO!KKO", &buffer, state->layout_type, &compiled, &records, &heap,
                          &bell))
        return -1;
    *layout = (layout_object *)Py_NewRef(compiled);
    if (PyObject_GetBuffer(buffer, view, PyBUF_WRITABLE) < 0)
        return -1;
    if (bell != Py_None && PyObject_GetBuffer(bell, doorbell, PyBUF_WRITABLE) < 0)
        return -1;
    strand_ring_init(ring, view->buf, (*layout)->version, (*layout)->stride, records, heap);
    ring->doorbell = doorbell->buf;
    if (is_geometry(view, *layout, ring) &&
        (bell == Py_None || (doorbell->len >= 4 && (uintptr_t)doorbell->buf % 4 == 0)))
        return 0;
    PyErr_SetString(PyExc_ValueError, "the ring's geometry does not fit the buffer");
    return -1;
}

/* ---- module functions ----------------------------------------------------------------------- */

/* Store one u32 with release order, after all earlier writes: publishes a header's magic. */
static PyObject *native_store_release(PyObject *Py_UNUSED(module), PyObject *args) {
    Py_buffer view;
    Py_ssize_t offset;
    unsigned int value;
    if (!PyArg_ParseTuple(args, "w*nI", &view, &offset, &value))
        return NULL;
    if (offset < 0 || offset % 4 != 0 || offset > view.len - 4 || (uintptr_t)view.buf % 4 != 0) {
        PyBuffer_Release(&view);
        PyErr_SetString(PyExc_ValueError, "offset outside the buffer, or not aligned");
        return NULL;
    }
    _Atomic uint32_t *word = (_Atomic uint32_t *)(void *)((unsigned char *)view.buf + offset);
    atomic_store_explicit(word, value, memory_order_release);
    PyBuffer_Release(&view);
    Py_RETURN_NONE;
}

/* Exchange one u32 if it has the expected value: acquires a role in a plain buffer. */
static PyObject *native_compare_exchange(PyObject *Py_UNUSED(module), PyObject *args) {
    Py_buffer view;
    Py_ssize_t offset;
    unsigned int expected, value;
    if (!PyArg_ParseTuple(args, "w*nII", &view, &offset, &expected, &value))
        return NULL;
    if (offset < 0 || offset % 4 != 0 || offset > view.len - 4 || (uintptr_t)view.buf % 4 != 0) {
        PyBuffer_Release(&view);
        PyErr_SetString(PyExc_ValueError, "offset outside the buffer, or not aligned");
        return NULL;
    }
    _Atomic uint32_t *word = (_Atomic uint32_t *)(void *)((unsigned char *)view.buf + offset);
    const bool swapped = atomic_compare_exchange_strong(word, &expected, value);
    PyBuffer_Release(&view);
    return PyBool_FromLong(swapped);
}

/* Map (buffer, layout, capacity, heap_capacity, doorbell | None) for one call. */
typedef struct {
    Py_buffer view;
    Py_buffer doorbell;
    layout_object *layout;
    strand_ring ring;
} borrowed_ring;

static int borrow(PyObject *module, PyObject *args, borrowed_ring *borrowed) {
    *borrowed = (borrowed_ring){0};
    return map_ring(args, PyModule_GetState(module), &borrowed->view, &borrowed->doorbell,
                    &borrowed->layout, &borrowed->ring);
}

static void release_borrowed(borrowed_ring *borrowed) {
    PyBuffer_Release(&borrowed->view);
    PyBuffer_Release(&borrowed->doorbell);
    Py_XDECREF((PyObject *)borrowed->layout);
}

static PyObject *native_signal_abort(PyObject *module, PyObject *args) {
    borrowed_ring borrowed;
    const bool mapped = borrow(module, args, &borrowed) == 0;
    if (mapped)
        strand_signal_abort(&borrowed.ring);
    release_borrowed(&borrowed);
    return mapped ? Py_NewRef(Py_None) : NULL;
}

static PyObject *native_mark_left(PyObject *module, PyObject *args) {
    borrowed_ring borrowed;
    PyObject *ring;
    unsigned int index;
    if (!PyArg_ParseTuple(args, "O!I", &PyTuple_Type, &ring, &index))
        return NULL;
    const bool mapped = borrow(module, ring, &borrowed) == 0 && index < STRAND_CONSUMERS;
    if (mapped)
        strand_mark_left(&borrowed.ring, index);
    release_borrowed(&borrowed);
    if (!mapped && !PyErr_Occurred())
        PyErr_SetString(PyExc_ValueError, "a ring has eight consumer entries");
    return mapped ? Py_NewRef(Py_None) : NULL;
}

static PyMethodDef native_methods[] = {
    {"signal_abort", native_signal_abort, METH_VARARGS,
     "Ask the producer of (buffer, layout, capacity, heap_capacity, doorbell or None) to stop."},
    {"mark_left", native_mark_left, METH_VARARGS,
     "Mark a dead consumer's entry as left: ((the arguments of signal_abort), index)."},
    {"store_release", native_store_release, METH_VARARGS,
     "Store (buffer, offset, u32) with release order, after all earlier writes."},
    {"compare_exchange", native_compare_exchange, METH_VARARGS,
     "Replace (buffer, offset, expected u32, new u32); return whether it had the expected value."},
    {"nap_any", native_nap_any, METH_VARARGS,
     "Sleep until one of (bells, values seen, nanoseconds) is rung; list the ones rung."},
    {"ring_bell", native_ring_bell, METH_O, "Ring a bell: wake every thread that sleeps on it."},
    {"find_nulls", native_find_nulls, METH_O,
     "Return one byte for each value of a list or tuple, 1 for None; None if no value is None."},
    {"flatten", native_flatten, METH_VARARGS,
     "Join (values, a mask whose nonzero bytes leave values out or None, whether they are "
     "strings): "
     "(data, 64-bit offsets)."},
    {NULL, NULL, 0, NULL},
};

/* ---- module --------------------------------------------------------------------------------- */

static PyObject *add_type(PyObject *module, PyType_Spec *spec) {
    PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);
    if (type != NULL && PyModule_AddType(module, (PyTypeObject *)type) < 0)
        Py_CLEAR(type);
    return type;
}

/* JSON without spaces and escapes. One encoder is reused, because json.dumps creates a new one for
 * every call with options other than its defaults. */
static PyObject *compact_encoder(PyObject *json) {
    PyObject *type = PyObject_GetAttrString(json, "JSONEncoder");
    PyObject *nothing = PyTuple_New(0);
    PyObject *options =
        Py_BuildValue("{s:O,s:(ss)}", "ensure_ascii", Py_False, "separators", ",", ":");
    PyObject *encoder = NULL;
    if (type != NULL && nothing != NULL && options != NULL)
        encoder = PyObject_Call(type, nothing, options);
    PyObject *encode = encoder == NULL ? NULL : PyObject_GetAttrString(encoder, "encode");
    Py_XDECREF(type);
    Py_XDECREF(nothing);
    Py_XDECREF(options);
    Py_XDECREF(encoder);
    return encode;
}

static int native_exec(PyObject *module) {
    native_state *state = PyModule_GetState(module);
    PyObject *producer = add_type(module, &producer_spec);
    PyObject *cursor = add_type(module, &cursor_spec);
    const bool made = producer != NULL && cursor != NULL;
    Py_XDECREF(producer);
    Py_XDECREF(cursor);
    state->consumer_type = add_type(module, &consumer_spec);
    state->lease_type = add_type(module, &lease_spec);
    state->row_iterator_type = add_type(module, &row_iterator_spec);
    state->layout_type = add_type(module, &layout_spec);
    PyObject *rows = list_field_types();
    const bool listed = rows != NULL && PyModule_AddObjectRef(module, "FIELD_TYPES", rows) == 0;
    Py_XDECREF(rows);
    PyObject *json = PyImport_ImportModule("json");
    if (json != NULL) {
        state->json_dumps = compact_encoder(json);
        state->json_loads = PyObject_GetAttrString(json, "loads");
        Py_DECREF(json);
    }
    return made && listed && state->consumer_type != NULL && state->lease_type != NULL &&
                   state->row_iterator_type != NULL && state->layout_type != NULL &&
                   state->json_dumps != NULL && state->json_loads != NULL
               ? 0
               : -1;
}

static int native_traverse(PyObject *module, visitproc visit, void *arg) {
    native_state *state = PyModule_GetState(module);
    Py_VISIT(state->lease_type);
    Py_VISIT(state->row_iterator_type);
    Py_VISIT(state->consumer_type);
    Py_VISIT(state->layout_type);
    Py_VISIT(state->json_dumps);
    Py_VISIT(state->json_loads);
    return 0;
}

static int native_clear(PyObject *module) {
    native_state *state = PyModule_GetState(module);
    Py_CLEAR(state->lease_type);
    Py_CLEAR(state->row_iterator_type);
    Py_CLEAR(state->consumer_type);
    Py_CLEAR(state->layout_type);
    Py_CLEAR(state->json_dumps);
    Py_CLEAR(state->json_loads);
    return 0;
}

static PyModuleDef_Slot native_slots[] = {
    {Py_mod_exec, native_exec},
    {0, NULL},
};

static PyModuleDef native_module = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "strand._native",
    .m_doc = "The ring's C core.",
    .m_size = sizeof(native_state),
    .m_methods = native_methods,
    .m_slots = native_slots,
    .m_traverse = native_traverse,
    .m_clear = native_clear,
};

PyMODINIT_FUNC PyInit__native(void);

PyMODINIT_FUNC PyInit__native(void) {
    return PyModuleDef_Init(&native_module);
}
