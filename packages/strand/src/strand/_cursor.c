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
    if (field->tag == TYPE_UTF8 || field->tag == TYPE_JSON)
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

#define GETTER(suffix, tag, type)                                                                  \
    static PyObject *cursor_get_##suffix(cursor_object *self, PyObject *name) {                    \
        return get_typed(self, name, tag, type);                                                   \
    }

GETTER(i32, TYPE_I32, "i32")
GETTER(u32, TYPE_U32, "u32")
GETTER(i64, TYPE_I64, "i64")
GETTER(f32, TYPE_F32, "f32")
GETTER(f64, TYPE_F64, "f64")
GETTER(u16, TYPE_U16, "u16")
GETTER(u8, TYPE_U8, "u8")
GETTER(bool, TYPE_BOOL8, "bool8")
GETTER(string, TYPE_UTF8, "utf8")
GETTER(ref, TYPE_UTF8_REF, "utf8_ref")
GETTER(json, TYPE_JSON, "json")
GETTER(bytes, TYPE_BYTES, "bytes")
GETTER(i32_array, TYPE_I32_ARRAY, "i32_array")
GETTER(f32_array, TYPE_F32_ARRAY, "f32_array")

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

#define GETTER_METHOD(suffix, type, answer)                                                        \
    {                                                                                              \
        "get_" #suffix, (PyCFunction)cursor_get_##suffix, METH_O,                                  \
            "get_" #suffix "($self, name, /)\n--\n\nReturn " answer " of a `" type                 \
            "` field, None when it is null.\n\nRaises:\n    UsageError: the field has another "    \
            "type; no "                                                                            \
            "record sought, or it was acknowledged since.\n    UnknownColumn: no field of that "   \
            "name."                                                                                \
    }

static PyMethodDef cursor_methods[] = {
    {"seek", (PyCFunction)cursor_seek, METH_O,
     "seek($self, seq, /)\n--\n\nMove to record `seq`.\n\nReturn False, and do not move, when it "
     "is not committed yet, or was acknowledged\nand may be overwritten."},
    {"get", (PyCFunction)cursor_get, METH_O,
     "get($self, name, /)\n--\n\nReturn a field of the record under the cursor, None when it is "
     "null.\n\nRaises:\n    UnknownColumn: no field of that name.\n    UsageError: no record "
     "sought, or it was acknowledged since."},
    GETTER_METHOD(i32, "i32", "the integer"),
    GETTER_METHOD(u32, "u32", "the integer"),
    GETTER_METHOD(i64, "i64", "the integer"),
    GETTER_METHOD(f32, "f32", "the number"),
    GETTER_METHOD(f64, "f64", "the number"),
    GETTER_METHOD(u16, "u16", "the integer"),
    GETTER_METHOD(u8, "u8", "the integer"),
    GETTER_METHOD(bool, "bool8", "the boolean"),
    GETTER_METHOD(string, "utf8", "the string, decoded once for each record,"),
    GETTER_METHOD(ref, "utf8_ref", "the interned string (the handle where there is no table)"),
    GETTER_METHOD(json, "json", "the value, parsed once for each record,"),
    GETTER_METHOD(bytes, "bytes", "a read-only view into the ring"),
    GETTER_METHOD(i32_array, "i32_array", "a read-only view (format `i`) into the ring"),
    GETTER_METHOD(f32_array, "f32_array", "a read-only view (format `f`) into the ring"),
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
