/* Layout: a record schema compiled for the loops that run over its fields. */
#include <string.h>

#include "_native.h"

enum {
    FIELDS_MAX = 1024,
    STRIDE_MAX = 65536,
    HEAP_ALIGN_MAX = 4096,
};

static const unsigned V5_POINTER_BYTES = 6;  /* u32 offset, u16 length */
static const unsigned V6_POINTER_BYTES = 16; /* u64 offset, u32 length, u32 zero */

/* ---- field types ---------------------------------------------------------------------------- */

#define FACTS_OF(name, wire_tag, field_kind, element, getter)                                      \
    [wire_tag] = {.formats = FORMATS_OF(element),                                                  \
                  .least = LEAST_OF(element),                                                      \
                  .most = MOST_OF(element),                                                        \
                  .floating = IS_FLOATING(element),                                                \
                  .kind = KIND_##field_kind,                                                       \
                  .item_bytes = sizeof(element)},

const field_type field_types[FIELD_TYPE_COUNT] = {FIELD_TYPES(FACTS_OF)};

#define TEXTS_OF(name, tag, kind, element, getter) [tag] = {#name, #kind, #getter},

PyObject *list_field_types(void) {
    static const struct {
        const char *name, *kind, *getter;
    } texts[FIELD_TYPE_COUNT] = {FIELD_TYPES(TEXTS_OF)};
    PyObject *rows = PyTuple_New(FIELD_TYPE_COUNT);
    for (int tag = 0; rows != NULL && tag < FIELD_TYPE_COUNT; tag++) {
        PyObject *row = Py_BuildValue("siss#s", texts[tag].name, tag, texts[tag].kind,
                                      field_types[tag].formats, (Py_ssize_t)1, texts[tag].getter);
        if (row == NULL)
            Py_CLEAR(rows);
        else
            PyTuple_SetItem(rows, tag, row);
    }
    return rows;
}

/* Bytes of a field in the slot. */
static unsigned width_of(unsigned tag, uint32_t version) {
    if (is_heap(field_types[tag].kind))
        return version >= 6 ? V6_POINTER_BYTES : V5_POINTER_BYTES;
    return field_types[tag].item_bytes;
}

/* ---- fields --------------------------------------------------------------------------------- */

/* Whether the loops may trust this field: its bytes and its null bit are inside the slot. */
static bool fits(const layout_object *self, const strand_field *field) {
    const unsigned width = width_of(field->tag, self->version);
    return field->width == width && (uint64_t)field->offset + width <= self->stride &&
           field->heap == is_heap(field->kind) && field->heap_align > 0 &&
           (field->heap_align & (field->heap_align - 1)) == 0 && field->null_bit >= -1 &&
           field->null_bit < (int32_t)self->stride * 8;
}

static int read_field(layout_object *self, PyObject *facts, uint32_t at) {
    strand_field *field = &self->fields[at];
    PyObject *name;
    unsigned char tag, width, heap_align;
    unsigned int offset;
    int heap, null_bit;
    if (!PyTuple_Check(facts)) {
        PyErr_SetString(PyExc_TypeError, "a field is a tuple");
        return -1;
    }
    if (!PyArg_ParseTuple(facts, "UbIbpbi", &name, &tag, &offset, &width, &heap, &heap_align,
                          &null_bit))
        return -1;
    if (tag >= FIELD_TYPE_COUNT) {
        PyErr_Format(PyExc_ValueError, "field %R has no type with tag %u", name, (unsigned)tag);
        return -1;
    }
    *field = (strand_field){.tag = tag,
                            .kind = field_types[tag].kind,
                            .width = width,
                            .heap = heap != 0,
                            .heap_align = heap_align,
                            .offset = offset,
                            .null_bit = null_bit};
    if (!fits(self, field)) {
        PyErr_Format(PyExc_ValueError, "field %R does not fit a slot of %u bytes", name,
                     self->stride);
        return -1;
    }
    Py_INCREF(name);
    PyUnicode_InternInPlace(&name);
    field->name = name;
    PyObject *position = PyLong_FromUnsignedLong(at);
    if (position == NULL)
        return -1;
    const int stored = PyDict_SetItem(self->index, name, position);
    Py_DECREF(position);
    return stored;
}

static int read_fields(layout_object *self, PyObject *fields) {
    const Py_ssize_t count = PyTuple_Size(fields);
    if (count < 1 || count > FIELDS_MAX) {
        PyErr_Format(PyExc_ValueError, "a layout has 1 to %d fields, not %zd", FIELDS_MAX, count);
        return -1;
    }
    self->index = PyDict_New();
    self->fields = PyMem_Calloc((size_t)count, sizeof *self->fields);
    if (self->index == NULL)
        return -1;
    if (self->fields == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    self->count = (uint32_t)count;
    uint64_t filled = 0;
    bool nullable = false;
    for (uint32_t at = 0; at < self->count; at++) {
        if (read_field(self, PyTuple_GetItem(fields, at), at) < 0)
            return -1;
        filled += self->fields[at].width;
        nullable |= self->fields[at].null_bit >= 0;
    }
    self->gapless = filled == self->stride && !nullable;
    self->blocks =
        self->version >= 6 && count == 1 && self->fields[0].kind == KIND_BYTES && !nullable;
    return 0;
}

/* ---- intern table --------------------------------------------------------------------------- */

/* Replace the table of utf8_ref fields; every view and writer that shares the layout sees it. */
static int store_intern(layout_object *self, PyObject *table) {
    if (PyUnicode_Check(table)) {
        PyErr_Format(PyExc_TypeError, "an intern table is a sequence of strings, not %R", table);
        return -1;
    }
    PyObject *intern = PySequence_Tuple(table);
    PyObject *handles = PyDict_New();
    if (intern == NULL || handles == NULL)
        goto failed;
    for (Py_ssize_t at = 0; at < PyTuple_Size(intern); at++) {
        PyObject *text = PyTuple_GetItem(intern, at);
        if (!PyUnicode_Check(text)) {
            PyErr_Format(PyExc_TypeError, "an intern table holds strings, not %R", text);
            goto failed;
        }
        PyObject *handle = PyLong_FromSsize_t(at);
        if (handle == NULL || PyDict_SetItem(handles, text, handle) < 0) {
            Py_XDECREF(handle);
            goto failed;
        }
        Py_DECREF(handle);
    }
    PyObject *old_intern = self->intern;
    PyObject *old_handles = self->handles;
    self->intern = intern;
    self->handles = handles;
    Py_XDECREF(old_intern);
    Py_XDECREF(old_handles);
    return 0;
failed:
    Py_XDECREF(intern);
    Py_XDECREF(handles);
    return -1;
}

static PyObject *layout_set_intern(layout_object *self, PyObject *table) {
    if (store_intern(self, table) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* ---- type ----------------------------------------------------------------------------------- */

/* Import array.array, the type of copied array payloads. */
static PyObject *import_array(void) {
    PyObject *module = PyImport_ImportModule("array");
    if (module == NULL)
        return NULL;
    PyObject *type = PyObject_GetAttrString(module, "array");
    Py_DECREF(module);
    return type;
}

static PyObject *layout_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs)) {
    unsigned int version, stride;
    PyObject *fields, *intern;
    if (!PyArg_ParseTuple(args, "IIO!O", &version, &stride, &PyTuple_Type, &fields, &intern))
        return NULL;
    if ((version != 5 && version != 6) || stride < 4 || stride > STRIDE_MAX) {
        PyErr_Format(PyExc_ValueError, "no slot of version %u has %u bytes", version, stride);
        return NULL;
    }
    layout_object *self = (layout_object *)allocate(type);
    if (self == NULL)
        return NULL;
    self->version = version;
    self->stride = stride;
    self->array_type = import_array();
    if (self->array_type == NULL || read_fields(self, fields) < 0 ||
        store_intern(self, intern) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void layout_dealloc(layout_object *self) {
    for (uint32_t at = 0; self->fields != NULL && at < self->count; at++)
        Py_XDECREF(self->fields[at].name);
    PyMem_Free(self->fields);
    Py_XDECREF(self->index);
    Py_XDECREF(self->intern);
    Py_XDECREF(self->handles);
    Py_XDECREF(self->array_type);
    free_object((PyObject *)self);
}

static PyObject *get_intern(layout_object *self, void *Py_UNUSED(closure)) {
    return Py_NewRef(self->intern);
}

static PyMethodDef layout_methods[] = {
    {"set_intern", (PyCFunction)layout_set_intern, METH_O,
     "set_intern($self, table, /)\n--\n\nReplace the strings that utf8_ref handles refer to."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef layout_fields[] = {
    {"intern", (getter)get_intern, NULL, "The strings that utf8_ref handles refer to.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot layout_slots[] = {
    {Py_tp_doc, "Layout(version, stride, fields, intern): a compiled record schema; fields are "
                "(name, tag, offset, width, heap, heap_align, null_bit or -1)."},
    {Py_tp_new, layout_new},
    {Py_tp_dealloc, layout_dealloc},
    {Py_tp_methods, layout_methods},
    {Py_tp_getset, layout_fields},
    {0, NULL},
};

PyType_Spec layout_spec = {
    .name = "strand._native.Layout",
    .basicsize = sizeof(layout_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = layout_slots,
};
