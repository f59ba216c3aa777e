/* Consumer: the core's reading half as a Python type, base of StrandView. */
#include <string.h>

#include "_native.h"

static PyObject *consumer_open(consumer_object *self, PyObject *args) {
    strand_ring ring;
    if (self->view.obj != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "this consumer is open already");
        return NULL;
    }
    self->state = state_of(Py_TYPE((PyObject *)self));
    if (self->state == NULL ||
        map_ring(args, self->state, &self->view, &self->doorbell, &self->layout, &ring) < 0)
        return NULL;
    strand_consumer_init(&self->core, &ring);
    Py_RETURN_NONE;
}

/* Release the buffers, unless a call in progress uses their addresses; see consumer_done. A lease
 * holds a buffer of its own, so the segment stays mapped as long as one exists. */
static void release_mapping(consumer_object *self) {
    if (self->busy == 0) {
        PyBuffer_Release(&self->view);
        PyBuffer_Release(&self->doorbell);
    }
}

static PyObject *consumer_release(consumer_object *self, PyObject *Py_UNUSED(ignored)) {
    self->closing = true;
    release_mapping(self);
    Py_RETURN_NONE;
}

static void consumer_dealloc(consumer_object *self) {
    PyBuffer_Release(&self->view);
    PyBuffer_Release(&self->doorbell);
    Py_XDECREF((PyObject *)self->layout);
    free_object((PyObject *)self);
}

bool consumer_closed(consumer_object *self) {
    if (self->view.obj != NULL && !self->closing)
        return false;
    fail(self, FAIL_CLOSED, -1, NULL);
    return true;
}

/* The mapping is released when the outermost call returns: see `done` in _producer.c. */
PyObject *consumer_done(consumer_object *self, PyObject *result) {
    if (--self->busy == 0 && self->closing)
        release_mapping(self);
    return result;
}

/* ---- entries -------------------------------------------------------------------------------- */

static int to_index(consumer_object *self, PyObject *value, unsigned *index) {
    uint64_t number;
    if (to_u64(value, &number) < 0)
        return -1;
    if (number >= STRAND_CONSUMERS || !(self->core.held >> number & 1)) {
        PyErr_SetString(PyExc_ValueError, "this view holds no such consumer entry");
        return -1;
    }
    *index = (unsigned)number;
    return 0;
}

static PyObject *consumer_join(consumer_object *self, PyObject *args) {
    unsigned int index;
    int next;
    if (consumer_closed(self) || !PyArg_ParseTuple(args, "Ip", &index, &next))
        return NULL;
    if (index >= STRAND_CONSUMERS) {
        PyErr_SetString(PyExc_ValueError, "a ring has eight consumer entries");
        return NULL;
    }
    strand_join(&self->core, index, next ? STRAND_NEXT : STRAND_OLDEST);
    Py_RETURN_NONE;
}

static PyObject *consumer_leave(consumer_object *self, PyObject *value) {
    unsigned index;
    if (consumer_closed(self) || to_index(self, value, &index) < 0)
        return NULL;
    strand_leave(&self->core, index);
    Py_RETURN_NONE;
}

/* Overwrite the slots and payloads of records about to be acknowledged with 0xDD, so that a program
 * that still reads them gets wrong values. Only while no other consumer may be reading them. */
static void poison(consumer_object *self, unsigned index, uint64_t upto) {
    const strand_ring *ring = &self->core.ring;
    const layout_object *layout = self->layout;
    if (strand_generation_of(ring) != self->core.generation)
        return;
    for (unsigned i = 0; i < STRAND_CONSUMERS; i++)
        if (i != index && strand_consumer_state_of(ring, i) == STRAND_ATTACHED)
            return;
    /* The records are this consumer's until it acknowledges: the producer does not write them. */
    for (uint64_t seq = self->core.read[index]; seq < upto; seq++) {
        unsigned char *slot = ring->base + strand_slot_at(ring, seq);
        for (uint32_t at = 0; at < layout->count; at++) {
            uint64_t start = 0, where = 0;
            uint32_t bytes = 0;
            const unsigned char *pointer = slot + layout->fields[at].offset;
            if (!layout->fields[at].heap)
                continue;
            /* u32 offset and u16 length in v5, u64 and u32 in v6: the low bytes are copied */
            memcpy(&start, pointer, ring->version == 5 ? 4 : 8);
            memcpy(&bytes, pointer + (ring->version == 5 ? 4 : 8), ring->version == 5 ? 2 : 4);
            if (strand_locate(ring, start, bytes, &where) == STRAND_OK)
                memset(ring->base + where, 0xDD, bytes);
        }
        memset(slot, 0xDD, ring->stride);
    }
}

static PyObject *consumer_acknowledge(consumer_object *self, PyObject *args) {
    unsigned long long upto;
    PyObject *entry;
    unsigned index;
    if (consumer_closed(self) || !PyArg_ParseTuple(args, "OK", &entry, &upto) ||
        to_index(self, entry, &index) < 0)
        return NULL;
    /* before the acknowledgement, after which the producer may write there */
    if (self->poisons && upto <= strand_committed(&self->core.ring))
        poison(self, index, upto);
    const int result = strand_acknowledge(&self->core, index, upto);
    if (result != STRAND_OK)
        return fail_number(self, FAIL_ACKNOWLEDGE, upto);
    Py_RETURN_NONE;
}

/* ---- reading -------------------------------------------------------------------------------- */

static PyObject *consumer_read_block(consumer_object *self, PyObject *value) {
    uint64_t seq, offset = 0, bytes = 0;
    if (consumer_closed(self) || to_u64(value, &seq) < 0)
        return NULL;
    if (!self->layout->blocks)
        return fail(self, FAIL_BLOCKS, -1, NULL);
    const int result = strand_read_block(&self->core, seq, &offset, &bytes);
    if (result != STRAND_OK)
        return fail_number(self, result, seq);
    return make_lease(self, offset, bytes);
}

static PyObject *consumer_lease(consumer_object *self, PyObject *args) {
    unsigned long long offset, bytes;
    if (consumer_closed(self) || !PyArg_ParseTuple(args, "KK", &offset, &bytes))
        return NULL;
    if (offset > (uint64_t)self->view.len || bytes > (uint64_t)self->view.len - offset) {
        PyErr_SetString(PyExc_ValueError, "a lease outside the segment");
        return NULL;
    }
    return make_lease(self, offset, bytes);
}

static PyObject *read_tuples(consumer_object *self, PyObject *const *args, Py_ssize_t count) {
    if (consumer_closed(self))
        return NULL;
    self->busy++;
    return consumer_done(self, consumer_tuples(self, args, count));
}

static PyObject *iterate_rows(consumer_object *self, PyObject *const *args, Py_ssize_t count) {
    return consumer_closed(self) ? NULL : consumer_rows(self, args, count);
}

static PyObject *gather(consumer_object *self, PyObject *args) {
    if (consumer_closed(self))
        return NULL;
    self->busy++;
    return consumer_done(self, consumer_gather(self, args));
}

static PyObject *payload_sizes(consumer_object *self, PyObject *args) {
    if (consumer_closed(self))
        return NULL;
    self->busy++;
    return consumer_done(self, consumer_payload_sizes(self, args));
}

static PyObject *consumer_status(consumer_object *self, PyObject *Py_UNUSED(ignored)) {
    if (consumer_closed(self))
        return NULL;
    return PyLong_FromUnsignedLong(strand_status_of(&self->core.ring));
}

static PyObject *consumer_aborted(consumer_object *self, PyObject *Py_UNUSED(ignored)) {
    if (consumer_closed(self))
        return NULL;
    return PyBool_FromLong(strand_aborted(&self->core.ring));
}

static PyObject *consumer_follow_reset(consumer_object *self, PyObject *Py_UNUSED(ignored)) {
    if (consumer_closed(self))
        return NULL;
    /* A join follows a reset by itself; the caller has to be told of it, too. */
    const bool reset_noticed = self->core.rewound;
    self->core.rewound = false;
    return PyBool_FromLong(strand_follow_reset(&self->core) || reset_noticed);
}

/* ---- waiting -------------------------------------------------------------------------------- */

static PyObject *consumer_wait(consumer_object *self, PyObject *args) {
    unsigned long long threshold, spin_nanoseconds, nap_nanoseconds;
    if (consumer_closed(self) ||
        !PyArg_ParseTuple(args, "KKK", &threshold, &spin_nanoseconds, &nap_nanoseconds))
        return NULL;
    bool reached;
    self->busy++; /* keep the mapping if another thread closes this end meanwhile */
    Py_BEGIN_ALLOW_THREADS;
    reached = strand_consumer_wait(&self->core, threshold, spin_nanoseconds, nap_nanoseconds);
    Py_END_ALLOW_THREADS;
    if (PyErr_CheckSignals() < 0)
        return consumer_done(self, NULL);
    return consumer_done(self, PyBool_FromLong(reached));
}

static PyObject *consumer_arm(consumer_object *self, PyObject *value) {
    uint64_t threshold;
    if (consumer_closed(self) || to_u64(value, &threshold) < 0)
        return NULL;
    strand_arm(&self->core, threshold); /* and the bell after it: see _words.h */
    return PyLong_FromUnsignedLong(strand_bell_of(&self->core));
}

/* ---- type ----------------------------------------------------------------------------------- */

static PyObject *get_committed(consumer_object *self, void *Py_UNUSED(closure)) {
    if (consumer_closed(self))
        return NULL;
    const uint64_t committed = strand_committed(&self->core.ring);
    /* A loop over the records trusts this count, so a corrupt one must not leave here. */
    if (!strand_is_possible(&self->core, committed))
        return fail(self, FAIL_CORRUPT, -1, NULL);
    return PyLong_FromUnsignedLongLong(committed);
}

static PyObject *get_low_water(consumer_object *self, void *Py_UNUSED(closure)) {
    return PyLong_FromUnsignedLongLong(self->core.held == 0 ? 0 : self->core.low_water);
}

static PyObject *get_reads(consumer_object *self, void *Py_UNUSED(closure)) {
    PyObject *reads = PyDict_New();
    for (unsigned i = 0; reads != NULL && i < STRAND_CONSUMERS; i++) {
        if (!(self->core.held >> i & 1))
            continue;
        PyObject *index = PyLong_FromUnsignedLong(i);
        PyObject *read = PyLong_FromUnsignedLongLong(self->core.read[i]);
        if (index == NULL || read == NULL || PyDict_SetItem(reads, index, read) < 0)
            Py_CLEAR(reads);
        Py_XDECREF(index);
        Py_XDECREF(read);
    }
    return reads;
}

static PyObject *get_counts(consumer_object *self, void *Py_UNUSED(closure)) {
    return Py_BuildValue("KK", (unsigned long long)self->core.sleeps,
                         (unsigned long long)self->core.rings);
}

static PyObject *get_reading(consumer_object *self, void *Py_UNUSED(closure)) {
    if (self->reading == UINT64_MAX)
        Py_RETURN_NONE;
    return PyLong_FromUnsignedLongLong(self->reading);
}

static PyObject *get_poisons(consumer_object *self, void *Py_UNUSED(closure)) {
    return PyBool_FromLong(self->poisons);
}

static int set_poisons(consumer_object *self, PyObject *value, void *Py_UNUSED(closure)) {
    const int truth = value == NULL ? 0 : PyObject_IsTrue(value);
    if (truth < 0)
        return -1;
    self->poisons = truth;
    return 0;
}

static PyMethodDef consumer_methods[] = {
    {"tuples", (PyCFunction)(void (*)(void))read_tuples, METH_FASTCALL,
     "tuples($self, start, stop, /)\n--\n\nReturn the typed records from `start` up to `stop` as "
     "tuples in field order.\n\nValues are copies: str, bytes, parsed JSON, array.array for "
     "arrays; None for null.\n\nRaises:\n    UsageError: records that are not committed, or were "
     "acknowledged.\n    Corrupt: a pointer that leaves the heap, text that does not decode."},
    {"rows", (PyCFunction)(void (*)(void))iterate_rows, METH_FASTCALL,
     "rows($self, start, stop, /)\n--\n\nIterate over the typed records from `start` up to `stop` "
     "as tuples, each read when the loop requests it.\n\nFaster than `tuples`, which holds all of "
     "them in "
     "memory.\n\nRaises:\n    UsageError: records that are not committed, or were acknowledged, "
     "now or "
     "during the iteration."},
    {"_open", (PyCFunction)consumer_open, METH_VARARGS,
     "Map (buffer, layout, capacity, heap_capacity, doorbell or None)."},
    {"_release", (PyCFunction)consumer_release, METH_NOARGS, "Release the mapping."},
    {"_join", (PyCFunction)consumer_join, METH_VARARGS,
     "Attach to entry (index, whether to start at the next record)."},
    {"_leave", (PyCFunction)consumer_leave, METH_O, "Leave the entry of this index."},
    {"_acknowledge", (PyCFunction)consumer_acknowledge, METH_VARARGS,
     "Acknowledge (entry index, position): the records below the position."},
    {"_status", (PyCFunction)consumer_status, METH_NOARGS, "The stream's status word."},
    {"_aborted", (PyCFunction)consumer_aborted, METH_NOARGS, "Whether an abort was requested."},
    {"_follow_reset", (PyCFunction)consumer_follow_reset, METH_NOARGS,
     "Whether the producer reset the ring since the last call; positions then restart at 0."},
    {"_read_block", (PyCFunction)consumer_read_block, METH_O,
     "Lease the payload of one record of a block ring."},
    {"_lease", (PyCFunction)consumer_lease, METH_VARARGS,
     "Lease (byte offset, bytes) of the segment."},
    {"_gather", (PyCFunction)gather, METH_VARARGS, "Read columns (see _batches.c)."},
    {"_payload_sizes", (PyCFunction)payload_sizes, METH_VARARGS,
     "Measure payloads (see _batches.c)."},
    {"_wait", (PyCFunction)consumer_wait, METH_VARARGS,
     "Wait one nap (threshold, nanoseconds to spin, nanoseconds to sleep) for records; True when "
     "they are committed."},
    {"_arm", (PyCFunction)consumer_arm, METH_O,
     "Store the count to be woken at; return the value of the bell to sleep on."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef consumer_fields[] = {
    {"committed_count", (getter)get_committed, NULL, "Records published so far.", NULL},
    {"window_start", (getter)get_low_water, NULL,
     "The oldest record that may be read; those below it were acknowledged.", NULL},
    {"_reads", (getter)get_reads, NULL, "Records acknowledged, by entry held.", NULL},
    {"_counts", (getter)get_counts, NULL, "Times slept, and bells rung.", NULL},
    {"_reading", (getter)get_reading, NULL, "The record that an error is about, or None.", NULL},
    {"_poisons", (getter)get_poisons, (setter)set_poisons, "Debug mode.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot consumer_slots[] = {
    {Py_tp_doc, "The consuming end of a ring; StrandView derives from it."},
    {Py_tp_dealloc, consumer_dealloc},
    {Py_tp_methods, consumer_methods},
    {Py_tp_getset, consumer_fields},
    {0, NULL},
};

PyType_Spec consumer_spec = {
    .name = "strand._native.Consumer",
    .basicsize = sizeof(consumer_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = consumer_slots,
};
