/* strand._native: the ring's core for Python, on the stable ABI of CPython 3.11.
 *
 * Thin by intent: arguments in, core function, answer out. Policy (whom to wait for, which error,
 * how often to look whether a peer lives) is Python's. The GIL is released only while a wait spins
 * or sleeps, and signals are looked at after each nap.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdatomic.h>
#include <string.h>

#include "_ring.h"

#ifndef STRAND_CFLAGS
#define STRAND_CFLAGS ""
#endif

/* The build looks for this text to know with which extra flags the extension was made. */
__attribute__((used)) static const char BUILD[] = "STRAND_CFLAGS=" STRAND_CFLAGS;

typedef struct {
    PyObject *lease_type;
    PyObject *errors[STRAND_RANGE + 1]; /* by result; NULL where no exception belongs to one */
} native_state;

typedef struct {
    PyObject ob_base;
    Py_buffer view; /* keeps the mapping alive; obj is NULL once closed */
    native_state *state;
    strand_producer core;
    uint64_t *heap_end;
} producer_object;

typedef struct {
    PyObject ob_base;
    Py_buffer view;
    native_state *state;
    strand_consumer core;
} consumer_object;

/* A payload handed out: exports its bytes read-only and counts who looks at them. */
typedef struct {
    PyObject ob_base;
    Py_buffer mapping; /* a hold of its own: the payload may outlive the consumer */
    unsigned char *start;
    Py_ssize_t bytes;
    Py_ssize_t exports;
    bool released;
} lease_object;

/* ---- shared pieces -------------------------------------------------------------------------- */

static int to_u64(PyObject *value, uint64_t *out) {
    unsigned long long number = PyLong_AsUnsignedLongLong(value);
    if (number == (unsigned long long)-1 && PyErr_Occurred())
        return -1;
    *out = number;
    return 0;
}

static int closed(const Py_buffer *view) {
    if (view->obj != NULL)
        return 0;
    PyErr_SetString(PyExc_ValueError, "this end of the ring is closed");
    return 1;
}

static const char *const MESSAGES[STRAND_RANGE + 1] = {
    [STRAND_TOO_LARGE] = "the record needs more than half of the heap",
    [STRAND_ABORTED] = "the consumer asked the producer to stop",
    [STRAND_EXHAUSTED] = "a v5 ring carries at most 2147483647 records",
    [STRAND_CORRUPT] = "a shared counter or heap pointer is impossible",
    [STRAND_RANGE] = "the record is not committed, or was acknowledged already",
};

/* Raise the exception that belongs to a core result; OK and WAIT are the caller's to handle. */
static PyObject *raise_result(const native_state *state, int result) {
    PyErr_SetString(state->errors[result], MESSAGES[result]);
    return NULL;
}

/* Parse (buffer, version, stride, capacity, heap_capacity[, index]) and map the ring. The caller
 * has validated the header; what would make the core touch memory outside is checked again. */
static int open_ring(PyObject *args, Py_buffer *view, strand_ring *ring, unsigned *index) {
    PyObject *buffer;
    unsigned int version, stride, consumer = 0;
    unsigned long long capacity, heap_capacity;
    if (!PyArg_ParseTuple(args, "OIIKK|I", &buffer, &version, &stride, &capacity, &heap_capacity,
                          &consumer))
        return -1;
    if (PyObject_GetBuffer(buffer, view, PyBUF_WRITABLE) < 0)
        return -1;
    strand_ring_init(ring, view->buf, version, stride, capacity, heap_capacity);
    if ((version == 5 || version == 6) && stride >= 4 && stride <= 65536 && capacity > 0 &&
        capacity <= 0x80000000U && (capacity & (capacity - 1)) == 0 && heap_capacity > 0 &&
        heap_capacity <= 0x80000000U && (heap_capacity & (heap_capacity - 1)) == 0 &&
        consumer < STRAND_CONSUMERS && (uintptr_t)view->buf % 64 == 0 &&
        ring->heap_start + heap_capacity <= (uint64_t)view->len) {
        *index = consumer;
        return 0;
    }
    PyBuffer_Release(view);
    PyErr_SetString(PyExc_ValueError, "the ring's geometry does not fit the buffer");
    return -1;
}

static void free_object(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyObject *allocate(PyTypeObject *type) {
    allocfunc make = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    return make(type, 0);
}

static PyObject *from_u64(uint64_t value) {
    return PyLong_FromUnsignedLongLong(value);
}

/* ---- Producer ------------------------------------------------------------------------------- */

static PyObject *producer_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs)) {
    producer_object *self = (producer_object *)allocate(type);
    if (self == NULL)
        return NULL;
    strand_ring ring;
    unsigned index;
    self->state = PyType_GetModuleState(type);
    if (self->state == NULL || open_ring(args, &self->view, &ring, &index) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    self->heap_end = PyMem_Calloc((size_t)ring.capacity, sizeof(uint64_t));
    if (self->heap_end == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    strand_producer_init(&self->core, &ring, self->heap_end);
    return (PyObject *)self;
}

static PyObject *producer_close(producer_object *self, PyObject *Py_UNUSED(ignored)) {
    PyBuffer_Release(&self->view);
    Py_RETURN_NONE;
}

static void producer_dealloc(producer_object *self) {
    PyBuffer_Release(&self->view);
    PyMem_Free(self->heap_end);
    free_object((PyObject *)self);
}

static PyObject *producer_write_block(producer_object *self, PyObject *payload) {
    if (closed(&self->view))
        return NULL;
    Py_buffer bytes;
    if (PyObject_GetBuffer(payload, &bytes, PyBUF_SIMPLE) < 0)
        return NULL;
    uint64_t threshold = 0;
    int result = strand_write_block(&self->core, bytes.buf, (uint64_t)bytes.len, &threshold);
    PyBuffer_Release(&bytes);
    if (result != STRAND_OK && result != STRAND_WAIT)
        return raise_result(self->state, result);
    return from_u64(result == STRAND_WAIT ? threshold : 0);
}

static PyObject *producer_claim_slot(producer_object *self, PyObject *Py_UNUSED(ignored)) {
    if (closed(&self->view))
        return NULL;
    uint64_t slot = 0;
    uint64_t threshold = 0;
    int result = strand_claim_slot(&self->core, &slot, &threshold);
    if (result != STRAND_OK && result != STRAND_WAIT)
        return raise_result(self->state, result);
    return Py_BuildValue("KK", (unsigned long long)slot,
                         (unsigned long long)(result == STRAND_WAIT ? threshold : 0));
}

static PyObject *producer_claim_heap(producer_object *self, PyObject *args) {
    unsigned long long bytes, align;
    if (closed(&self->view) || !PyArg_ParseTuple(args, "KK", &bytes, &align))
        return NULL;
    if (align == 0 || align > 4096 || (align & (align - 1)) != 0) {
        PyErr_SetString(PyExc_ValueError, "alignment must be a power of two up to 4096");
        return NULL;
    }
    uint64_t offset = 0;
    uint64_t threshold = 0;
    int result = strand_claim_heap(&self->core, bytes, align, &offset, &threshold);
    if (result != STRAND_OK && result != STRAND_WAIT)
        return raise_result(self->state, result);
    return Py_BuildValue("KK", (unsigned long long)offset,
                         (unsigned long long)(result == STRAND_WAIT ? threshold : 0));
}

static PyObject *producer_seal(producer_object *self, PyObject *Py_UNUSED(ignored)) {
    if (closed(&self->view))
        return NULL;
    strand_seal(&self->core);
    Py_RETURN_NONE;
}

static PyObject *producer_abandon(producer_object *self, PyObject *Py_UNUSED(ignored)) {
    if (closed(&self->view))
        return NULL;
    strand_abandon(&self->core);
    Py_RETURN_NONE;
}

static PyObject *producer_publish(producer_object *self, PyObject *Py_UNUSED(ignored)) {
    if (closed(&self->view))
        return NULL;
    strand_publish(&self->core);
    Py_RETURN_NONE;
}

static PyObject *producer_set_status(producer_object *self, PyObject *value) {
    uint64_t status;
    if (closed(&self->view) || to_u64(value, &status) < 0)
        return NULL;
    strand_set_status(&self->core.ring, (uint32_t)status);
    Py_RETURN_NONE;
}

static PyObject *producer_wait(producer_object *self, PyObject *args) {
    unsigned long long threshold, nap_nanoseconds;
    unsigned int spins;
    if (closed(&self->view) || !PyArg_ParseTuple(args, "KIK", &threshold, &spins, &nap_nanoseconds))
        return NULL;
    bool reached;
    Py_buffer hold; /* a close() from another thread must not unmap under us */
    if (PyObject_GetBuffer(self->view.obj, &hold, PyBUF_SIMPLE) < 0)
        return NULL;
    Py_BEGIN_ALLOW_THREADS;
    reached = strand_producer_wait(&self->core, threshold, spins, nap_nanoseconds);
    Py_END_ALLOW_THREADS;
    PyBuffer_Release(&hold);
    if (PyErr_CheckSignals() < 0)
        return NULL;
    return PyBool_FromLong(reached);
}

static PyObject *producer_sealed(producer_object *self, void *Py_UNUSED(closure)) {
    return from_u64(self->core.write);
}

static PyObject *producer_committed(producer_object *self, void *Py_UNUSED(closure)) {
    return from_u64(self->core.commit);
}

static PyMethodDef producer_methods[] = {
    {"write_block", (PyCFunction)producer_write_block, METH_O,
     "Publish one payload; answers 0, or the count of reads to wait for first."},
    {"claim_slot", (PyCFunction)producer_claim_slot, METH_NOARGS,
     "Claim and zero the next slot: (byte offset, reads to wait for or 0)."},
    {"claim_heap", (PyCFunction)producer_claim_heap, METH_VARARGS,
     "Claim heap bytes (count, alignment): (monotonic offset, reads to wait for or 0)."},
    {"seal", (PyCFunction)producer_seal, METH_NOARGS, "The claimed record is filled."},
    {"abandon", (PyCFunction)producer_abandon, METH_NOARGS, "Drop the record being built."},
    {"publish", (PyCFunction)producer_publish, METH_NOARGS, "Show every sealed record."},
    {"set_status", (PyCFunction)producer_set_status, METH_O, "Set the status; wake everybody."},
    {"wait", (PyCFunction)producer_wait, METH_VARARGS,
     "Wait one nap (threshold, spins, nanoseconds) for room; True when there is."},
    {"close", (PyCFunction)producer_close, METH_NOARGS, "Let go of the mapping."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef producer_fields[] = {
    {"sealed", (getter)producer_sealed, NULL, "Records filled, published or not.", NULL},
    {"committed", (getter)producer_committed, NULL, "Records published.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot producer_slots[] = {
    {Py_tp_doc, "Producer(buffer, version, stride, capacity, heap_capacity)"},
    {Py_tp_new, producer_new},
    {Py_tp_dealloc, producer_dealloc},
    {Py_tp_methods, producer_methods},
    {Py_tp_getset, producer_fields},
    {0, NULL},
};

static PyType_Spec producer_spec = {
    .name = "strand._native.Producer",
    .basicsize = sizeof(producer_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = producer_slots,
};

/* ---- Consumer ------------------------------------------------------------------------------- */

static PyObject *consumer_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs)) {
    consumer_object *self = (consumer_object *)allocate(type);
    if (self == NULL)
        return NULL;
    strand_ring ring;
    unsigned index;
    self->state = PyType_GetModuleState(type);
    if (self->state == NULL || open_ring(args, &self->view, &ring, &index) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    strand_consumer_attach(&self->core, &ring, index);
    return (PyObject *)self;
}

static PyObject *consumer_close(consumer_object *self, PyObject *Py_UNUSED(ignored)) {
    PyBuffer_Release(&self->view);
    Py_RETURN_NONE;
}

static void consumer_dealloc(consumer_object *self) {
    PyBuffer_Release(&self->view);
    free_object((PyObject *)self);
}

static PyObject *consumer_leave(consumer_object *self, PyObject *Py_UNUSED(ignored)) {
    if (closed(&self->view))
        return NULL;
    strand_consumer_leave(&self->core);
    Py_RETURN_NONE;
}

static PyObject *consumer_committed(consumer_object *self, PyObject *Py_UNUSED(ignored)) {
    if (closed(&self->view))
        return NULL;
    return from_u64(strand_committed(&self->core.ring));
}

static PyObject *consumer_status(consumer_object *self, PyObject *Py_UNUSED(ignored)) {
    if (closed(&self->view))
        return NULL;
    return PyLong_FromUnsignedLong(strand_status_of(&self->core.ring));
}

static PyObject *consumer_aborted(consumer_object *self, PyObject *Py_UNUSED(ignored)) {
    if (closed(&self->view))
        return NULL;
    return PyBool_FromLong(strand_aborted(&self->core.ring));
}

static PyObject *consumer_lease(consumer_object *self, uint64_t offset, uint64_t bytes) {
    lease_object *lease = (lease_object *)allocate((PyTypeObject *)self->state->lease_type);
    if (lease == NULL)
        return NULL;
    if (PyObject_GetBuffer(self->view.obj, &lease->mapping, PyBUF_SIMPLE) < 0) {
        Py_DECREF(lease);
        return NULL;
    }
    lease->start = self->core.ring.base + offset;
    lease->bytes = (Py_ssize_t)bytes;
    return (PyObject *)lease;
}

static PyObject *consumer_read_block(consumer_object *self, PyObject *value) {
    uint64_t seq, offset = 0, bytes = 0;
    if (closed(&self->view) || to_u64(value, &seq) < 0)
        return NULL;
    int result = strand_read_block(&self->core, seq, &offset, &bytes);
    if (result != STRAND_OK)
        return raise_result(self->state, result);
    return consumer_lease(self, offset, bytes);
}

static PyObject *consumer_acknowledge(consumer_object *self, PyObject *value) {
    uint64_t upto;
    if (closed(&self->view) || to_u64(value, &upto) < 0)
        return NULL;
    int result = strand_acknowledge(&self->core, upto);
    if (result != STRAND_OK)
        return raise_result(self->state, result);
    Py_RETURN_NONE;
}

static PyObject *consumer_wait(consumer_object *self, PyObject *args) {
    unsigned long long threshold, nap_nanoseconds;
    unsigned int spins;
    if (closed(&self->view) || !PyArg_ParseTuple(args, "KIK", &threshold, &spins, &nap_nanoseconds))
        return NULL;
    bool reached;
    Py_buffer hold; /* a close() from another thread must not unmap under us */
    if (PyObject_GetBuffer(self->view.obj, &hold, PyBUF_SIMPLE) < 0)
        return NULL;
    Py_BEGIN_ALLOW_THREADS;
    reached = strand_consumer_wait(&self->core, threshold, spins, nap_nanoseconds);
    Py_END_ALLOW_THREADS;
    PyBuffer_Release(&hold);
    if (PyErr_CheckSignals() < 0)
        return NULL;
    return PyBool_FromLong(reached);
}

static PyObject *consumer_read(consumer_object *self, void *Py_UNUSED(closure)) {
    return from_u64(self->core.read);
}

static PyMethodDef consumer_methods[] = {
    {"committed", (PyCFunction)consumer_committed, METH_NOARGS, "Records published so far."},
    {"status", (PyCFunction)consumer_status, METH_NOARGS, "The stream's status word."},
    {"aborted", (PyCFunction)consumer_aborted, METH_NOARGS, "Whether an abort was asked for."},
    {"read_block", (PyCFunction)consumer_read_block, METH_O,
     "Lease the payload of one record of a v6 block ring."},
    {"acknowledge", (PyCFunction)consumer_acknowledge, METH_O, "Give records below this back."},
    {"wait", (PyCFunction)consumer_wait, METH_VARARGS,
     "Wait one nap (threshold, spins, nanoseconds) for records; True when they are there."},
    {"leave", (PyCFunction)consumer_leave, METH_NOARGS, "Say that nobody reads here any more."},
    {"close", (PyCFunction)consumer_close, METH_NOARGS, "Let go of the mapping."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef consumer_fields[] = {
    {"read", (getter)consumer_read, NULL, "Records acknowledged.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot consumer_slots[] = {
    {Py_tp_doc, "Consumer(buffer, version, stride, capacity, heap_capacity, index)"},
    {Py_tp_new, consumer_new},
    {Py_tp_dealloc, consumer_dealloc},
    {Py_tp_methods, consumer_methods},
    {Py_tp_getset, consumer_fields},
    {0, NULL},
};

static PyType_Spec consumer_spec = {
    .name = "strand._native.Consumer",
    .basicsize = sizeof(consumer_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = consumer_slots,
};

/* ---- Lease ---------------------------------------------------------------------------------- */

static int lease_getbuffer(lease_object *self, Py_buffer *view, int flags) {
    if (self->released) {
        view->obj = NULL;
        PyErr_SetString(PyExc_BufferError, "this payload was given back to the ring");
        return -1;
    }
    if (PyBuffer_FillInfo(view, (PyObject *)self, self->start, self->bytes, 1, flags) < 0)
        return -1;
    self->exports++;
    return 0;
}

static void lease_releasebuffer(lease_object *self, Py_buffer *Py_UNUSED(view)) {
    self->exports--;
}

static void lease_dealloc(lease_object *self) {
    PyBuffer_Release(&self->mapping);
    free_object((PyObject *)self);
}

static PyObject *lease_release(lease_object *self, PyObject *Py_UNUSED(ignored)) {
    if (self->exports > 0)
        Py_RETURN_FALSE;
    self->released = true;
    Py_RETURN_TRUE;
}

static PyMethodDef lease_methods[] = {
    {"release", (PyCFunction)lease_release, METH_NOARGS,
     "End the lease; False while somebody still looks at the bytes."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot lease_slots[] = {
    {Py_tp_doc, "A payload in the ring, readable until it is released."},
    {Py_tp_dealloc, lease_dealloc},
    {Py_tp_methods, lease_methods},
    {Py_bf_getbuffer, lease_getbuffer},
    {Py_bf_releasebuffer, lease_releasebuffer},
    {0, NULL},
};

static PyType_Spec lease_spec = {
    .name = "strand._native.Lease",
    .basicsize = sizeof(lease_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = lease_slots,
};

/* ---- module --------------------------------------------------------------------------------- */

static PyObject *native_signal_abort(PyObject *Py_UNUSED(module), PyObject *args) {
    Py_buffer view;
    strand_ring ring;
    unsigned index;
    if (open_ring(args, &view, &ring, &index) < 0)
        return NULL;
    strand_signal_abort(&ring);
    PyBuffer_Release(&view);
    Py_RETURN_NONE;
}

/* Store one u32 after everything written before it: how a header's magic is published. */
static PyObject *native_store_release(PyObject *Py_UNUSED(module), PyObject *args) {
    Py_buffer view;
    Py_ssize_t offset;
    unsigned int value;
    if (!PyArg_ParseTuple(args, "w*nI", &view, &offset, &value))
        return NULL;
    if (offset < 0 || offset % 4 != 0 || offset > view.len - 4) {
        PyBuffer_Release(&view);
        PyErr_SetString(PyExc_ValueError, "offset outside the buffer, or not aligned");
        return NULL;
    }
    _Atomic uint32_t *word = (_Atomic uint32_t *)(void *)((unsigned char *)view.buf + offset);
    atomic_store_explicit(word, value, memory_order_release);
    PyBuffer_Release(&view);
    Py_RETURN_NONE;
}

static PyMethodDef native_methods[] = {
    {"signal_abort", native_signal_abort, METH_VARARGS,
     "Ask the producer of (buffer, version, stride, capacity, heap_capacity) to stop."},
    {"store_release", native_store_release, METH_VARARGS,
     "Store (buffer, offset, u32) after everything written before it."},
    {NULL, NULL, 0, NULL},
};

static PyObject *add_type(PyObject *module, PyType_Spec *spec) {
    PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);
    if (type != NULL && PyModule_AddType(module, (PyTypeObject *)type) < 0)
        Py_CLEAR(type);
    return type;
}

static int native_exec(PyObject *module) {
    static const char *const names[STRAND_RANGE] = {
        [STRAND_TOO_LARGE] = "strand._native.TooLarge",
        [STRAND_ABORTED] = "strand._native.Aborted",
        [STRAND_EXHAUSTED] = "strand._native.Exhausted",
        [STRAND_CORRUPT] = "strand._native.CorruptRing",
    };
    native_state *state = PyModule_GetState(module);
    PyObject *producer = add_type(module, &producer_spec);
    PyObject *consumer = add_type(module, &consumer_spec);
    const bool made = producer != NULL && consumer != NULL;
    Py_XDECREF(producer);
    Py_XDECREF(consumer);
    state->lease_type = add_type(module, &lease_spec);
    if (!made || state->lease_type == NULL)
        return -1;
    for (int i = STRAND_TOO_LARGE; i < STRAND_RANGE; i++) {
        state->errors[i] = PyErr_NewException(names[i], NULL, NULL);
        const char *name = strrchr(names[i], '.') + 1;
        if (state->errors[i] == NULL || PyModule_AddObjectRef(module, name, state->errors[i]) < 0)
            return -1;
    }
    state->errors[STRAND_RANGE] = Py_NewRef(PyExc_IndexError);
    return 0;
}

static int native_traverse(PyObject *module, visitproc visit, void *arg) {
    native_state *state = PyModule_GetState(module);
    Py_VISIT(state->lease_type);
    for (int i = 0; i <= STRAND_RANGE; i++)
        Py_VISIT(state->errors[i]);
    return 0;
}

static int native_clear(PyObject *module) {
    native_state *state = PyModule_GetState(module);
    Py_CLEAR(state->lease_type);
    for (int i = 0; i <= STRAND_RANGE; i++)
        Py_CLEAR(state->errors[i]);
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
