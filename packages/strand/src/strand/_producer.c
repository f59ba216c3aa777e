/* Producer: the core's producing half as a Python type, base of StrandWriter. */
#include <string.h>

#include "_native.h"

/* Release the buffers, unless a call in progress uses their addresses: then `done` does. */
static void release_mapping(producer_object *self) {
    if (self->busy == 0) {
        PyBuffer_Release(&self->view);
        PyBuffer_Release(&self->doorbell);
    }
}

/* Open, or open again after _release for the next stream of the same ring. */
static PyObject *producer_open(producer_object *self, PyObject *args) {
    strand_ring ring;
    if (self->view.obj != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "this producer is open already");
        return NULL;
    }
    PyMem_Free(self->heap_end); /* of the stream before, as the layout */
    self->heap_end = NULL;
    Py_CLEAR(self->layout);
    self->state = state_of(Py_TYPE((PyObject *)self));
    if (self->state == NULL ||
        map_ring(args, self->state, &self->view, &self->doorbell, &self->layout, &ring) < 0)
        return NULL;
    self->heap_end = PyMem_Calloc((size_t)ring.capacity, sizeof(uint64_t));
    if (self->heap_end == NULL) {
        release_mapping(self);
        return PyErr_NoMemory();
    }
    self->closing = false;
    strand_producer_init(&self->core, &ring, self->heap_end);
    Py_RETURN_NONE;
}

static PyObject *producer_release(producer_object *self, PyObject *Py_UNUSED(ignored)) {
    self->closing = true;
    release_mapping(self);
    Py_RETURN_NONE;
}

static void producer_dealloc(producer_object *self) {
    PyBuffer_Release(&self->view);
    PyBuffer_Release(&self->doorbell);
    PyMem_Free(self->heap_end);
    Py_XDECREF((PyObject *)self->layout);
    free_object((PyObject *)self);
}

bool producer_closed(producer_object *self) {
    if (self->view.obj != NULL && !self->closing)
        return false;
    fail(self, FAIL_CLOSED, -1, NULL);
    return true;
}

/* Leave a call that incremented `busy`; returns `result`. Python code may run during a call (a
 * signal handler, an __index__) and close this end, so the mapping is released when the outermost
 * call returns. */
static PyObject *done(producer_object *self, PyObject *result) {
    if (--self->busy == 0 && self->closing)
        release_mapping(self);
    return result;
}

/* ---- claims --------------------------------------------------------------------------------- */

int wait_for_room(producer_object *self, uint64_t threshold) {
    /* Sealed records first: a consumer cannot acknowledge what is not published, and both sides
     * would sleep. */
    strand_publish(&self->core);
    PyObject *waited =
        PyObject_CallMethod((PyObject *)self, "_wait_for_room", "K", (unsigned long long)threshold);
    if (waited == NULL) {
        if (self->view.obj != NULL) /* the wait was cancelled */
            strand_producer_disarm(&self->core);
        return -1;
    }
    Py_DECREF(waited);
    return producer_closed(self) ? -1 : 0;
}

/* Claim `count` successive slots, waiting until there is room. */
static int claim(producer_object *self, uint64_t count, uint64_t *seq) {
    for (;;) {
        uint64_t threshold = 0;
        const int result = strand_claim_slots(&self->core, count, seq, &threshold);
        if (result == STRAND_OK)
            return 0;
        if (result != STRAND_WAIT) {
            fail(self, result, -1, NULL);
            return -1;
        }
        if (wait_for_room(self, threshold) < 0)
            return -1;
    }
}

/* Whether claimed slots are open, with an error set: whole records cannot be written meanwhile. */
static bool has_claims(producer_object *self) {
    if (self->core.claimed == self->core.write)
        return false;
    fail_number(self, FAIL_ORDER, self->core.claimed);
    return true;
}

/* Whether `count` more slots exceed the ring, with an error set. Slots that are claimed and not
 * committed cannot be acknowledged, so waiting for them would never end. */
static bool claims_too_many(producer_object *self, uint64_t count) {
    const uint64_t open = self->core.claimed - self->core.write;
    if (count != 0 && count <= self->core.ring.capacity - open)
        return false;
    fail_number(self, FAIL_COUNT, count > UINT64_MAX - open ? count : count + open);
    return true;
}

unsigned char *claim_one(producer_object *self) {
    uint64_t seq = 0;
    if (claim(self, 1, &seq) < 0)
        return NULL;
    return self->core.ring.base + strand_slot_at(&self->core.ring, seq);
}

unsigned char *claim_payload(producer_object *self, uint64_t bytes, uint64_t align,
                             uint64_t *offset) {
    const strand_ring *ring = &self->core.ring;
    for (;;) {
        uint64_t threshold = 0;
        const int result = strand_claim_heap(&self->core, bytes, align, offset, &threshold);
        if (result == STRAND_OK)
            return ring->base + ring->heap_start + (*offset & (ring->heap_capacity - 1));
        if (result != STRAND_WAIT) {
            fail_number(self, result, self->core.record_bytes + bytes);
            return NULL;
        }
        if (wait_for_room(self, threshold) < 0)
            return NULL;
    }
}

static PyObject *slot_and_seq(const producer_object *self, uint64_t seq) {
    return Py_BuildValue("KK", (unsigned long long)strand_slot_at(&self->core.ring, seq),
                         (unsigned long long)seq);
}

static PyObject *producer_claim_slot(producer_object *self, PyObject *Py_UNUSED(ignored)) {
    uint64_t seq = 0;
    if (producer_closed(self) || claims_too_many(self, 1) || claim(self, 1, &seq) < 0)
        return NULL;
    return slot_and_seq(self, seq);
}

static PyObject *producer_claim_slots(producer_object *self, PyObject *value) {
    uint64_t count, seq = 0;
    if (producer_closed(self) || to_u64(value, &count) < 0)
        return NULL;
    if (claims_too_many(self, count) || claim(self, count, &seq) < 0)
        return NULL;
    PyObject *slots = PyList_New((Py_ssize_t)count);
    for (uint64_t i = 0; slots != NULL && i < count; i++) {
        PyObject *slot = slot_and_seq(self, seq + i);
        if (slot == NULL)
            Py_CLEAR(slots);
        else
            PyList_SetItem(slots, (Py_ssize_t)i, slot);
    }
    return slots;
}

/* The same, returning only the first sequence number, for a caller that computes slot addresses. */
static PyObject *producer_claim(producer_object *self, PyObject *value) {
    uint64_t count, seq = 0;
    if (producer_closed(self) || to_u64(value, &count) < 0)
        return NULL;
    if (claims_too_many(self, count) || claim(self, count, &seq) < 0)
        return NULL;
    return PyLong_FromUnsignedLongLong(seq);
}

static PyObject *producer_claim_heap_bytes(producer_object *self, PyObject *args) {
    unsigned long long bytes, align = 1;
    if (producer_closed(self) || !PyArg_ParseTuple(args, "K|K", &bytes, &align))
        return NULL;
    if (align == 0 || align > 4096 || (align & (align - 1)) != 0) {
        PyErr_SetString(PyExc_ValueError, "alignment must be a power of two up to 4096");
        return NULL;
    }
    uint64_t offset = 0;
    const unsigned char *payload = claim_payload(self, bytes, align, &offset);
    if (payload == NULL)
        return NULL;
    return Py_BuildValue("KK", (unsigned long long)(payload - self->core.ring.base),
                         (unsigned long long)offset);
}

/* Seal and publish claimed slots. In the order of their claims only: the commit counter publishes
 * every record below it, so a slot that is not filled yet must not precede one that is. */
static PyObject *commit(producer_object *self, uint64_t seq, uint64_t count) {
    if (seq != self->core.write || count > self->core.claimed - self->core.write)
        return fail_number(self, FAIL_ORDER, seq);
    strand_seal(&self->core, count);
    strand_publish(&self->core);
    Py_RETURN_NONE;
}

static PyObject *producer_commit_slot(producer_object *self, PyObject *value) {
    uint64_t seq;
    if (producer_closed(self) || to_u64(value, &seq) < 0)
        return NULL;
    return commit(self, seq, 1);
}

static PyObject *producer_commit_slots(producer_object *self, PyObject *args) {
    unsigned long long seq, count;
    if (producer_closed(self) || !PyArg_ParseTuple(args, "KK", &seq, &count))
        return NULL;
    return commit(self, seq, count);
}

static PyObject *producer_commit_heap(producer_object *self, PyObject *Py_UNUSED(ignored)) {
    if (producer_closed(self))
        return NULL;
    strand_commit_heap(&self->core);
    Py_RETURN_NONE;
}

static PyObject *producer_abandon(producer_object *self, PyObject *Py_UNUSED(ignored)) {
    if (producer_closed(self))
        return NULL;
    strand_abandon(&self->core);
    Py_RETURN_NONE;
}

static PyObject *producer_shrink(producer_object *self, PyObject *args) {
    unsigned long long offset, bytes;
    if (producer_closed(self) || !PyArg_ParseTuple(args, "KK", &offset, &bytes))
        return NULL;
    /* Only bytes that are claimed and not sealed: those of the record under construction. */
    if (offset < self->core.heap_sealed || bytes > self->core.heap_write - offset) {
        PyErr_SetString(PyExc_ValueError, "a payload can only shrink");
        return NULL;
    }
    strand_shrink_heap(&self->core, offset, bytes);
    Py_RETURN_NONE;
}

/* ---- whole records -------------------------------------------------------------------------- */

/* Publish one payload; `bytes` is held by the caller. */
static PyObject *write_block(producer_object *self, const Py_buffer *bytes) {
    for (;;) {
        uint64_t threshold = 0;
        const int result =
            strand_write_block(&self->core, bytes->buf, (uint64_t)bytes->len, &threshold);
        if (result == STRAND_OK)
            Py_RETURN_NONE;
        if (result != STRAND_WAIT)
            return fail_number(self, result, (uint64_t)bytes->len);
        if (wait_for_room(self, threshold) < 0)
            return NULL;
    }
}

static PyObject *producer_write_bytes(producer_object *self, PyObject *payload) {
    Py_buffer bytes;
    if (producer_closed(self) || has_claims(self))
        return NULL;
    if (!self->layout->blocks)
        return fail(self, FAIL_BLOCKS, -1, NULL);
    if (PyObject_GetBuffer(payload, &bytes, PyBUF_SIMPLE) < 0)
        return NULL;
    self->busy++; /* a wait for room runs Python code, which may close this end */
    PyObject *result = write_block(self, &bytes);
    PyBuffer_Release(&bytes);
    return done(self, result);
}

static PyObject *write_one(producer_object *self, PyObject *record) {
    if (producer_closed(self) || has_claims(self))
        return NULL;
    self->busy++;
    return done(self, producer_write(self, record));
}

static PyObject *write_many(producer_object *self, PyObject *records) {
    if (producer_closed(self) || has_claims(self))
        return NULL;
    self->busy++;
    return done(self, producer_write_record_batch(self, records));
}

static PyObject *write_columns(producer_object *self, PyObject *args) {
    if (producer_closed(self) || has_claims(self))
        return NULL;
    self->busy++;
    return done(self, producer_scatter(self, args));
}

/* ---- stream --------------------------------------------------------------------------------- */

static PyObject *producer_begin(producer_object *self, PyObject *Py_UNUSED(ignored)) {
    if (producer_closed(self))
        return NULL;
    if (!self->core.streaming)
        strand_begin(&self->core);
    Py_RETURN_NONE;
}

static PyObject *producer_set_status(producer_object *self, PyObject *value) {
    uint64_t status;
    if (producer_closed(self) || to_u64(value, &status) < 0)
        return NULL;
    strand_set_status(&self->core.ring, (uint32_t)status);
    Py_RETURN_NONE;
}

static PyObject *producer_rewind(producer_object *self, PyObject *Py_UNUSED(ignored)) {
    if (producer_closed(self))
        return NULL;
    strand_reset(&self->core);
    Py_RETURN_NONE;
}

static PyObject *producer_wait(producer_object *self, PyObject *args) {
    unsigned long long threshold, spin_nanoseconds, nap_nanoseconds;
    if (producer_closed(self) ||
        !PyArg_ParseTuple(args, "KKK", &threshold, &spin_nanoseconds, &nap_nanoseconds))
        return NULL;
    bool reached;
    self->busy++; /* keep the mapping if another thread closes this end meanwhile */
    Py_BEGIN_ALLOW_THREADS;
    reached = strand_producer_wait(&self->core, threshold, spin_nanoseconds, nap_nanoseconds);
    Py_END_ALLOW_THREADS;
    if (PyErr_CheckSignals() < 0)
        return done(self, NULL);
    return done(self, PyBool_FromLong(reached));
}

static PyObject *producer_arm(producer_object *self, PyObject *value) {
    uint64_t threshold;
    if (producer_closed(self) || to_u64(value, &threshold) < 0)
        return NULL;
    return PyLong_FromUnsignedLong(strand_producer_arm(&self->core, threshold));
}

static PyObject *producer_disarm(producer_object *self, PyObject *Py_UNUSED(ignored)) {
    if (self->view.obj != NULL)
        strand_producer_disarm(&self->core);
    Py_RETURN_NONE;
}

static PyObject *producer_discard(producer_object *self, PyObject *Py_UNUSED(ignored)) {
    self->core.discards = true;
    Py_RETURN_NONE;
}

static PyObject *producer_raise(producer_object *self, PyObject *Py_UNUSED(ignored)) {
    self->core.raises = true;
    Py_RETURN_NONE;
}

static PyObject *get_committed(producer_object *self, void *Py_UNUSED(closure)) {
    return PyLong_FromUnsignedLongLong(self->core.commit);
}

static PyObject *get_sealed(producer_object *self, void *Py_UNUSED(closure)) {
    return PyLong_FromUnsignedLongLong(self->core.write);
}

static PyObject *get_counts(producer_object *self, void *Py_UNUSED(closure)) {
    return Py_BuildValue("KK", (unsigned long long)self->core.stalls,
                         (unsigned long long)self->core.rings);
}

static PyMethodDef producer_methods[] = {
    {"write", (PyCFunction)write_one, METH_O,
     "write($self, record, /)\n--\n\nPublish one typed record: a tuple in field order, or a "
     "mapping.\n\nRaises what write_record_batch raises."},
    {"write_record_batch", (PyCFunction)write_many, METH_O,
     "write_record_batch($self, records, /)\n--\n\nPublish typed records, tuples in field order or "
     "mappings; return how many.\n\nThey become visible together, or in the pieces that the ring "
     "has room for.\n\nRaises:\n    UsageError: a record does not fit the schema; those before it "
     "were written.\n    PayloadTooLarge: its strings and arrays take more than half of the heap; "
     "likewise.\n    StrandAbortError, ConsumerDied, RingExhausted: as they say; likewise."},
    {"write_bytes", (PyCFunction)producer_write_bytes, METH_O,
     "write_bytes($self, payload, /)\n--\n\nPublish one payload of a block ring: one copy into "
     "shared memory.\n\nRaises:\n    PayloadTooLarge: more than half of the heap.\n    "
     "StrandAbortError: the consumer requested a stop.\n    ConsumerDied: the ring is full and has "
     "no "
     "consumer any more."},
    {"begin", (PyCFunction)producer_begin, METH_NOARGS,
     "begin($self, /)\n--\n\nSet the status to streaming; the first write does it as well."},
    {"claim_slot", (PyCFunction)producer_claim_slot, METH_NOARGS,
     "claim_slot($self, /)\n--\n\nClaim the next slot, zeroed, to be filled by hand: (byte offset "
     "in `memory`, sequence number).\n\nFill its fields, with `claim_heap_bytes` for payloads, "
     "then `commit_slot`."},
    {"claim_slots", (PyCFunction)producer_claim_slots, METH_O,
     "claim_slots($self, count, /)\n--\n\nClaim `count` successive slots at once: a list of (byte "
     "offset, sequence number)."},
    {"commit_slot", (PyCFunction)producer_commit_slot, METH_O,
     "commit_slot($self, seq, /)\n--\n\nPublish the record filled in a claimed slot.\n\nRaises:\n"
     "    UsageError: not the next one in order."},
    {"commit_slots", (PyCFunction)producer_commit_slots, METH_VARARGS,
     "commit_slots($self, seq, count, /)\n--\n\nPublish `count` claimed records from `seq` on."
     "\n\nRaises:\n    UsageError: out of order, or more than were claimed."},
    {"claim_heap_bytes", (PyCFunction)producer_claim_heap_bytes, METH_VARARGS,
     "claim_heap_bytes($self, count, align=1, /)\n--\n\nClaim contiguous heap bytes for the "
     "claimed slots: (byte offset in `memory`, monotonic offset for the heap pointer)."},
    {"commit_heap", (PyCFunction)producer_commit_heap, METH_NOARGS,
     "commit_heap($self, /)\n--\n\nPublish the heap bytes claimed so far, ahead of their records."},
    {"abandon", (PyCFunction)producer_abandon, METH_NOARGS,
     "abandon($self, /)\n--\n\nDrop every claimed slot that was not committed, and its heap "
     "bytes."},
    {"_claim", (PyCFunction)producer_claim, METH_O,
     "Claim successive slots; return the first one's sequence number."},
    {"_open", (PyCFunction)producer_open, METH_VARARGS,
     "Map (buffer, layout, capacity, heap_capacity, doorbell or None)."},
    {"_release", (PyCFunction)producer_release, METH_NOARGS, "Release the mapping."},
    {"_scatter", (PyCFunction)write_columns, METH_VARARGS, "Write columns (see _batches.c)."},
    {"_shrink", (PyCFunction)producer_shrink, METH_VARARGS,
     "Shorten the newest payload: (monotonic offset, bytes kept)."},
    {"_set_status", (PyCFunction)producer_set_status, METH_O,
     "Set the status and ring every bell."},
    {"_rewind", (PyCFunction)producer_rewind, METH_NOARGS, "Start the next generation."},
    {"_raise_unread", (PyCFunction)producer_raise, METH_NOARGS,
     "With no consumer attached, do not sleep: a wait returns at once."},
    {"_discard_unread", (PyCFunction)producer_discard, METH_NOARGS,
     "Overwrite records while no consumer is attached."},
    {"_disarm", (PyCFunction)producer_disarm, METH_NOARGS, "Clear the threshold of the last wait."},
    {"_wait", (PyCFunction)producer_wait, METH_VARARGS,
     "Wait one nap (threshold, nanoseconds to spin, nanoseconds to sleep) for room; True when "
     "there is."},
    {"_arm", (PyCFunction)producer_arm, METH_O,
     "Store the count to be woken at; return the value of the bell to sleep on."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef producer_fields[] = {
    {"committed_count", (getter)get_committed, NULL, "Records published so far.", NULL},
    {"_sealed", (getter)get_sealed, NULL, "Records filled, published or not.", NULL},
    {"_counts", (getter)get_counts, NULL, "Claims that found no room, and bells rung.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot producer_slots[] = {
    {Py_tp_doc, "The producing end of a ring; StrandWriter derives from it."},
    {Py_tp_dealloc, producer_dealloc},
    {Py_tp_methods, producer_methods},
    {Py_tp_getset, producer_fields},
    {0, NULL},
};

PyType_Spec producer_spec = {
    .name = "strand._native.Producer",
    .basicsize = sizeof(producer_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = producer_slots,
};
