/* Cursor: reads records one at a time through one reused object; base of RecordCursor. */
#include "_values.h"

/* The first fields are found by comparing addresses of names, which is faster than a dict; later
 * fields are found in the dict. */
enum { SCANNED_FIELDS = 16 };

/* A decoded string or JSON value, and the record it belongs to. */
typedef struct {
    PyObject *value;
    int64_t seq;
    uint32_t generation;
} decoded;

typedef struct {
    PyObject ob_base;
    consumer_object *view;
    layout_object *layout; /* the view's when the cursor was made */
    int64_t seq;           /* -1: before the first */
    uint32_t generation;
    decoded *cache; /* one for each field */
} cursor_object;

/* ---- position ------------------------------------------------------------------------------- */

static PyObject *cursor_seek(cursor_object *self, PyObject *value) {
    consumer_object *view = self->view;
    if (consumer_closed(view))
        return NULL;
    int overflow;
    const int64_t seq = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (seq == -1 && PyErr_Occurred())
        return NULL;
    if (overflow != 0 || seq < 0 || !strand_readable(&view->core, (uint64_t)seq))
        Py_RETURN_FALSE;
    self->seq = seq;
    self->generation = view->core.generation;
    Py_RETURN_TRUE;
}

/* The slot under the cursor; NULL and an error set if its record is not, or no longer, readable. */
static const unsigned char *current(const cursor_object *self) {
    consumer_object *view = self->view;
    if (consumer_closed(view))
        return NULL;
    if (self->seq >= 0 && (uint64_t)self->seq >= view->core.low_water &&
        self->generation == view->core.generation && self->layout == view->layout) {
        view->reading = (uint64_t)self->seq;
        return view->core.ring.base + strand_slot_at(&view->core.ring, (uint64_t)self->seq);
    }
    PyObject *seq = PyLong_FromLongLong(self->seq);
    if (seq != NULL)
        fail(view, FAIL_NO_RECORD, -1, seq);
    Py_XDECREF(seq);
    return NULL;
}

/* The position of the field of this name, or -1 and an error set. Comparing addresses works because
 * string literals are interned, and so are the layout's names. */
static Py_ssize_t find(const cursor_object *self, PyObject *name) {
    const layout_object *layout = self->layout;
    for (uint32_t at = 0; at < layout->count && at < SCANNED_FIELDS; at++)
        if (layout->fields[at].name == name)
            return (Py_ssize_t)at;
    PyObject *position = PyDict_GetItemWithError(layout->index, name);
    if (position != NULL)
        return PyLong_AsSsize_t(position);
    if (!PyErr_Occurred())
        fail(self->view, FAIL_FIELD, -1, name);
    return -1;
}

/* ---- values --------------------------------------------------------------------------------- */

static PyObject *read_decoded(cursor_object *self, const unsigned char *slot, uint32_t at) {
    decoded *cached = &self->cache[at];
    const int64_t seq = self->seq; /* decoding may run code that moves this cursor */
    const uint32_t generation = self->generation;
    if (cached->value != NULL && cached->seq == seq && cached->generation == generation)
        return Py_NewRef(cached->value);
    PyObject *value = read_payload(self->view, slot, at);
    if (value == NULL)
        return NULL;
    PyObject *old = cached->value;
    *cached = (decoded){Py_NewRef(value), seq, generation};
    Py_XDECREF(old);
    return value;
}

static PyObject *read_at(cursor_object *self, uint32_t at) {
    const unsigned char *slot = current(self);
    if (slot == NULL)
        return NULL;
    const strand_field *field = &self->layout->fields[at];
    if (!is_present(slot, field))
        Py_RETURN_NONE;
    if (!field->heap)
        return read_scalar(self->view, slot, at);
    if (is_text(field->kind))
        return read_decoded(self, slot, at);
    return lease_payload(self->view, slot, at);
}

static PyObject *cursor_get(cursor_object *self, PyObject *name) {
    const Py_ssize_t at = find(self, name);
    return at < 0 ? NULL : read_at(self, (uint32_t)at);
}

static PyObject *get_typed(cursor_object *self, PyObject *name, uint8_t tag, const char *type) {
    const Py_ssize_t at = find(self, name);
    if (at < 0)
        return NULL;
    if (self->layout->fields[at].tag == tag)
        return read_at(self, (uint32_t)at);
    PyObject *detail = PyUnicode_FromString(type);
    if (detail != NULL)
        fail(self->view, FAIL_TYPE, at, detail);
    Py_XDECREF(detail);
    return NULL;
}

#define GETTER(name, tag, kind, element, getter)                                                   \
    static PyObject *cursor_get_##getter(cursor_object *self, PyObject *field) {                   \
        return get_typed(self, field, tag, #name);                                                 \
    }
FIELD_TYPES(GETTER)

static PyObject *cursor_to_tuple(cursor_object *self, PyObject *Py_UNUSED(ignored)) {
    if (current(self) == NULL)
        return NULL;
    const uint32_t count = self->layout->count;
    PyObject *record = PyTuple_New((Py_ssize_t)count);
    for (uint32_t at = 0; record != NULL && at < count; at++) {
        PyObject *value = read_at(self, at);
        if (value == NULL)
            Py_CLEAR(record);
        else
            PyTuple_SetItem(record, (Py_ssize_t)at, value);
    }
    return record;
}

static PyObject *cursor_to_dict(cursor_object *self, PyObject *Py_UNUSED(ignored)) {
    if (current(self) == NULL)
        return NULL;
    const layout_object *layout = self->layout;
    PyObject *record = PyDict_New();
    for (uint32_t at = 0; record != NULL && at < layout->count; at++) {
        PyObject *value = read_at(self, at);
        if (value == NULL || PyDict_SetItem(record, layout->fields[at].name, value) < 0)
            Py_CLEAR(record);
        Py_XDECREF(value);
    }
    return record;
}

static PyObject *get_seq(cursor_object *self, void *Py_UNUSED(closure)) {
    return PyLong_FromLongLong(self->seq);
}

/* ---- type ----------------------------------------------------------------------------------- */

static PyObject *cursor_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs)) {
    const native_state *state = state_of(type);
    PyObject *view;
    if (state == NULL || !PyArg_ParseTuple(args, "O!", state->consumer_type, &view))
        return NULL;
    if (consumer_closed((consumer_object *)view))
        return NULL;
    cursor_object *self = (cursor_object *)allocate(type);
    if (self == NULL)
        return NULL;
    self->view = (consumer_object *)Py_NewRef(view);
    self->layout = (layout_object *)Py_NewRef((PyObject *)self->view->layout);
    self->seq = -1;
    self->cache = PyMem_Calloc(self->layout->count, sizeof *self->cache);
    if (self->cache == NULL) {
        Py_DECREF((PyObject *)self);
        return PyErr_NoMemory();
    }
    return (PyObject *)self;
}

static int cursor_traverse(cursor_object *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE((PyObject *)self));
    Py_VISIT((PyObject *)self->view);
    for (uint32_t at = 0; self->cache != NULL && at < self->layout->count; at++)
        Py_VISIT(self->cache[at].value);
    return 0;
}

/* There is no tp_clear: every method needs the view, so it is released only here. A cycle through
 * this cursor can still be collected, because decoded values cannot refer to the cursor and the
 * view's other references can be cleared. */
static void cursor_dealloc(cursor_object *self) {
    PyObject_GC_UnTrack(self);
    for (uint32_t at = 0; self->cache != NULL && at < self->layout->count; at++)
        Py_XDECREF(self->cache[at].value);
    PyMem_Free(self->cache);
    Py_XDECREF((PyObject *)self->layout);
    Py_XDECREF((PyObject *)self->view);
    free_object((PyObject *)self);
}

/* What the getter of each kind returns. */
#define ANSWER_INTEGER "the integer"
#define ANSWER_FLOAT "the number"
#define ANSWER_BOOLEAN "the boolean"
#define ANSWER_HANDLE "the interned string (the handle where there is no table)"
#define ANSWER_TEXT "the string, decoded once for each record,"
#define ANSWER_JSON "the value, parsed once for each record,"
#define ANSWER_BYTES "a read-only view into the ring"
#define ANSWER_ARRAY "a read-only view of the numbers in the ring"

#define GETTER_METHOD(name, tag, kind, element, getter)                                            \
    {"get_" #getter, (PyCFunction)cursor_get_##getter, METH_O,                                     \
     "get_" #getter "($self, name, /)\n--\n\nReturn " ANSWER_##kind                                \
     " of a `" #name                                                                               \
     "` field, None when it is null.\n\nRaises:\n    UsageError: the field has another type; "     \
     "no record sought, or it was acknowledged since.\n    UnknownColumn: no field of that "       \
     "name."},

static PyMethodDef cursor_methods[] = {
    {"seek", (PyCFunction)cursor_seek, METH_O,
     "seek($self, seq, /)\n--\n\nMove to record `seq`.\n\nReturn False, and do not move, when it "
     "is not committed yet, or was acknowledged\nand may be overwritten."},
    {"get", (PyCFunction)cursor_get, METH_O,
     "get($self, name, /)\n--\n\nReturn a field of the record under the cursor, None when it is "
     "null.\n\nRaises:\n    UnknownColumn: no field of that name.\n    UsageError: no record "
     "sought, or it was acknowledged since."},
    /* clang-format off */
    FIELD_TYPES(GETTER_METHOD)
    /* clang-format on */
    {"to_tuple", (PyCFunction)cursor_to_tuple, METH_NOARGS,
     "to_tuple($self, /)\n--\n\nReturn what `get` returns for all fields, in order."},
    {"to_dict", (PyCFunction)cursor_to_dict, METH_NOARGS,
     "to_dict($self, /)\n--\n\nReturn what `get` returns for all fields, by name."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef cursor_fields[] = {
    {"seq", (getter)get_seq, NULL, "The record under the cursor; -1 before the first.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot cursor_slots[] = {
    {Py_tp_doc, "A cursor over the records of a ring; RecordCursor derives from it."},
    {Py_tp_new, cursor_new},
    {Py_tp_dealloc, cursor_dealloc},
    {Py_tp_traverse, cursor_traverse},
    {Py_tp_methods, cursor_methods},
    {Py_tp_getset, cursor_fields},
    {Py_mp_subscript, cursor_get},
    {0, NULL},
};

PyType_Spec cursor_spec = {
    .name = "strand._native.Cursor",
    .basicsize = sizeof(cursor_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = cursor_slots,
};
