/* Read slots as Python values.
 *
 * Another process can write this memory at any time. So offsets and lengths are copied out of it
 * once, and the copy is checked and used.
 */
#include "_values.h"

#include <string.h>

/* ---- numbers -------------------------------------------------------------------------------- */

/* Return the string of a handle; the handle itself when the intern table is empty. */
static PyObject *resolve(consumer_object *self, uint32_t handle, uint32_t at) {
    PyObject *intern = self->layout->intern;
    const Py_ssize_t count = PyTuple_Size(intern);
    if (count == 0)
        return PyLong_FromUnsignedLong(handle);
    if ((Py_ssize_t)handle < count)
        return Py_NewRef(PyTuple_GetItem(intern, (Py_ssize_t)handle));
    PyObject *number = PyLong_FromUnsignedLong(handle);
    if (number != NULL)
        fail(self, FAIL_INTERN, (Py_ssize_t)at, number);
    Py_XDECREF(number);
    return NULL;
}

/* Every integer element fits in an int64_t. PyLong_FromLong is the faster function, where a long
 * has as many bits. */
static PyObject *make_integer(int64_t value) {
    return sizeof(long) == sizeof value ? PyLong_FromLong((long)value) : PyLong_FromLongLong(value);
}

/* A case of read_scalar. The size of the memcpy is constant, so that it compiles to one load. */
#define READ_AS(tag, element, make)                                                                \
    case tag: {                                                                                    \
        element value;                                                                             \
        memcpy(&value, at_slot, sizeof value);                                                     \
        return make;                                                                               \
    }
#define READ_INTEGER(tag, element) READ_AS(tag, element, make_integer(value))
#define READ_FLOAT(tag, element) READ_AS(tag, element, PyFloat_FromDouble((double)value))
#define READ_BOOLEAN(tag, element) READ_AS(tag, element, Py_NewRef(value != 0 ? Py_True : Py_False))
#define READ_HANDLE(tag, element) READ_AS(tag, element, resolve(self, value, at))
#define READ_TEXT(tag, element) /* payloads are read by read_payload */
#define READ_JSON(tag, element)
#define READ_BYTES(tag, element)
#define READ_ARRAY(tag, element)
#define READ_FIELD(name, tag, kind, element, getter) READ_##kind(tag, element)

PyObject *read_scalar(consumer_object *self, const unsigned char *slot, uint32_t at) {
    const strand_field *field = &self->layout->fields[at];
    const unsigned char *at_slot = slot + field->offset;
    STRAND_INVARIANT(!field->heap);
    switch (field->tag) { FIELD_TYPES(READ_FIELD) }
    Py_UNREACHABLE();
}

/* How far ahead of a string to prefetch later ones from the producer's cache. */
enum { AHEAD_BYTES = 512 };

/* ---- payloads ------------------------------------------------------------------------------- */

typedef struct {
    uint64_t offset; /* in the segment */
    uint64_t bytes;
} place;

/* The struct code of an array's items. */
static int code_of(const strand_field *field) {
    return field_types[field->tag].formats[0];
}

#define POWER_OF_TWO(name, tag, kind, element, getter)                                             \
    _Static_assert((sizeof(element) & (sizeof(element) - 1)) == 0, "locate() masks by its size");
FIELD_TYPES(POWER_OF_TWO)

/* Find the bytes of a payload; -1 and an error set when its pointer is invalid. */
static int locate(consumer_object *self, const unsigned char *slot, uint32_t at, place *found) {
    const strand_field *field = &self->layout->fields[at];
    const unsigned char *pointer = slot + field->offset;
    uint64_t start;
    if (self->layout->version == 5) {
        uint32_t low;
        uint16_t bytes;
        memcpy(&low, pointer, sizeof low);
        memcpy(&bytes, pointer + sizeof low, sizeof bytes);
        start = low;
        found->bytes = bytes;
    } else {
        uint32_t bytes;
        memcpy(&start, pointer, sizeof start);
        memcpy(&bytes, pointer + sizeof start, sizeof bytes);
        found->bytes = bytes;
    }
    /* A mask, because a division by a number that the compiler does not know costs more than the
     * rest of this function. */
    const uint64_t partial_item = found->bytes & (field_types[field->tag].item_bytes - 1u);
    if (strand_locate(&self->core.ring, start, found->bytes, &found->offset) == STRAND_OK &&
        partial_item == 0)
        return 0;
    PyObject *bytes = PyLong_FromUnsignedLongLong(found->bytes);
    if (bytes != NULL)
        fail(self, FAIL_CORRUPT, (Py_ssize_t)at, bytes);
    Py_XDECREF(bytes);
    return -1;
}

/* Replace the error of a decoder (invalid UTF-8, invalid JSON) by FAIL_TEXT; others are kept. */
static PyObject *refuse_text(consumer_object *self, uint32_t at) {
    if (!PyErr_ExceptionMatches(PyExc_ValueError) && !PyErr_ExceptionMatches(PyExc_RecursionError))
        return NULL;
    PyObject *type, *error, *trace;
    PyErr_Fetch(&type, &error, &trace);
    PyErr_NormalizeException(&type, &error, &trace);
    fail(self, FAIL_TEXT, (Py_ssize_t)at, error);
    Py_XDECREF(type);
    Py_XDECREF(error);
    Py_XDECREF(trace);
    return NULL;
}

/* Copy to an array.array, which supports comparison, pickling and the buffer protocol. */
static PyObject *copy_array(consumer_object *self, const strand_field *field, const char *payload,
                            uint64_t bytes) {
    return PyObject_CallFunction(self->layout->array_type, "Cy#", code_of(field), payload,
                                 (Py_ssize_t)bytes);
}

PyObject *read_payload(consumer_object *self, const unsigned char *slot, uint32_t at) {
    const strand_field *field = &self->layout->fields[at];
    place found;
    if (locate(self, slot, at, &found) < 0)
        return NULL;
    const char *payload = (const char *)self->core.ring.base + found.offset;
    if (field->kind == KIND_BYTES)
        return PyBytes_FromStringAndSize(payload, (Py_ssize_t)found.bytes);
    if (field->kind == KIND_ARRAY)
        return copy_array(self, field, payload, found.bytes);
    __builtin_prefetch(payload + AHEAD_BYTES);
    PyObject *text = PyUnicode_DecodeUTF8(payload, (Py_ssize_t)found.bytes, NULL);
    if (text != NULL && field->kind == KIND_JSON) {
        PyObject *value = PyObject_CallFunctionObjArgs(self->state->json_loads, text, NULL);
        Py_DECREF(text);
        text = value;
    }
    return text != NULL ? text : refuse_text(self, at);
}

PyObject *lease_payload(consumer_object *self, const unsigned char *slot, uint32_t at) {
    const strand_field *field = &self->layout->fields[at];
    place found;
    if (locate(self, slot, at, &found) < 0)
        return NULL;
    PyObject *lease = make_lease(self, found.offset, found.bytes);
    PyObject *view = lease == NULL ? NULL : PyMemoryView_FromObject(lease);
    Py_XDECREF(lease);
    if (view == NULL || field->kind != KIND_ARRAY)
        return view;
    PyObject *elements = PyObject_CallMethod(view, "cast", "C", code_of(field));
    Py_DECREF(view);
    return elements;
}

PyObject *read_value(consumer_object *self, const unsigned char *slot, uint32_t at) {
    const strand_field *field = &self->layout->fields[at];
    if (!is_present(slot, field))
        return Py_NewRef(Py_None);
    return field->heap ? read_payload(self, slot, at) : read_scalar(self, slot, at);
}

/* ---- records -------------------------------------------------------------------------------- */

bool is_acyclic(const layout_object *layout) {
    for (uint32_t at = 0; at < layout->count; at++)
        if (layout->fields[at].kind == KIND_JSON)
            return false;
    return true;
}

static PyObject *read_tuple(consumer_object *self, const unsigned char *slot) {
    const uint32_t count = self->layout->count;
    PyObject *record = PyTuple_New((Py_ssize_t)count);
    for (uint32_t at = 0; record != NULL && at < count; at++) {
        PyObject *value = read_value(self, slot, at);
        if (value == NULL)
            Py_CLEAR(record);
        else
            PyTuple_SetItem(record, (Py_ssize_t)at, value);
    }
    return record;
}

bool is_readable(consumer_object *self, uint64_t start, uint64_t stop) {
    if (start == stop)
        return true;
    if (start > stop || !strand_readable(&self->core, start)) {
        fail_number(self, FAIL_RANGE, start);
        return false;
    }
    if (!strand_readable(&self->core, stop - 1)) {
        fail_number(self, FAIL_RANGE, stop - 1);
        return false;
    }
    return true;
}

PyObject *consumer_tuples(consumer_object *self, PyObject *const *args, Py_ssize_t count) {
    uint64_t start, stop;
    if (count != 2) {
        PyErr_Format(PyExc_TypeError, "tuples() needs start and stop, not %zd arguments", count);
        return NULL;
    }
    if (to_u64(args[0], &start) < 0 || to_u64(args[1], &stop) < 0 ||
        !is_readable(self, start, stop))
        return NULL;
    const strand_ring *ring = &self->core.ring;
    const bool acyclic = is_acyclic(self->layout);
    PyObject *records = PyList_New((Py_ssize_t)(stop - start));
    for (uint64_t seq = start; records != NULL && seq < stop; seq++) {
        self->reading = seq;
        PyObject *record = read_tuple(self, ring->base + strand_slot_at(ring, seq));
        if (record == NULL) {
            Py_CLEAR(records);
            break;
        }
        if (acyclic)
            PyObject_GC_UnTrack(record);
        PyList_SetItem(records, (Py_ssize_t)(seq - start), record);
    }
    return records;
}
