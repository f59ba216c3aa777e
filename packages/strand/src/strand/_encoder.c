/* Encode Python values as slots.
 *
 * A record is encoded completely before anything is claimed. So a value that does not fit leaves
 * the ring unchanged, and Python code of a value (an __index__, a JSON default) never runs while a
 * claim is open.
 */
#include "_encoder.h"

#include <math.h>
#include <string.h>

static const uint64_t V5_PAYLOAD_MAX = 0xFFFF;

int encoder_init(encoder *e, producer_object *self) {
    const layout_object *layout = self->layout;
    e->self = self;
    e->layout = layout;
    e->payload_count = 0;
    e->allocated = NULL;
    e->image = (unsigned char *)e->small_image;
    e->payloads = e->small_payloads;
    if (layout->stride <= SMALL_IMAGE && layout->count <= SMALL_PAYLOADS)
        return 0;
    e->allocated = PyMem_Malloc(layout->count * sizeof(payload) + layout->stride);
    if (e->allocated == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    e->payloads = e->allocated;
    e->image = (unsigned char *)(e->payloads + layout->count);
    return 0;
}

void encoder_free(encoder *e) {
    PyMem_Free(e->allocated);
}

void release_payloads(encoder *e) {
    for (uint32_t i = 0; i < e->payload_count; i++) {
        Py_XDECREF(e->payloads[i].owner);
        PyBuffer_Release(&e->payloads[i].buffer);
    }
    e->payload_count = 0;
}

/* ---- refusals ------------------------------------------------------------------------------- */

/* Replace a TypeError, ValueError, OverflowError or BufferError by FAIL_VALUE for the field; other
 * errors (an interrupt) are kept. */
static int refuse(encoder *e, uint32_t at) {
    if (!PyErr_ExceptionMatches(PyExc_TypeError) && !PyErr_ExceptionMatches(PyExc_ValueError) &&
        !PyErr_ExceptionMatches(PyExc_OverflowError) && !PyErr_ExceptionMatches(PyExc_BufferError))
        return -1;
    PyObject *type, *error, *trace;
    PyErr_Fetch(&type, &error, &trace);
    PyErr_NormalizeException(&type, &error, &trace);
    fail(e->self, FAIL_VALUE, (Py_ssize_t)at, error);
    Py_XDECREF(type);
    Py_XDECREF(error);
    Py_XDECREF(trace);
    return -1;
}

static int refuse_type(encoder *e, uint32_t at, PyObject *value, const char *wanted) {
    PyObject *name = PyType_GetName(Py_TYPE(value));
    if (name != NULL)
        PyErr_Format(PyExc_TypeError, "%U is not %s", name, wanted);
    Py_XDECREF(name);
    return refuse(e, at);
}

static int refuse_number(encoder *e, uint32_t at, PyObject *value) {
    fail(e->self, FAIL_VALUE, (Py_ssize_t)at, value);
    return -1;
}

/* ---- numbers -------------------------------------------------------------------------------- */

/* Convert an int, or an object with __index__, as struct.pack does. */
static int to_integer(encoder *e, uint32_t at, PyObject *value, int64_t low, int64_t high,
                      int64_t *number) {
    int overflow = 0;
    if (PyLong_Check(value)) {
        *number = PyLong_AsLongLongAndOverflow(value, &overflow);
    } else {
        PyObject *index = PyNumber_Index(value);
        if (index == NULL)
            return refuse(e, at);
        *number = PyLong_AsLongLongAndOverflow(index, &overflow);
        Py_DECREF(index);
    }
    if (overflow != 0 || *number < low || *number > high)
        return refuse_number(e, at, value);
    return 0;
}

static int put_integer(encoder *e, uint32_t at, PyObject *value) {
    const strand_field *field = &e->layout->fields[at];
    const field_type *type = &field_types[field->tag];
    int64_t number = 0;
    if (to_integer(e, at, value, type->least, type->most, &number) < 0)
        return -1;
    memcpy(e->image + field->offset, &number, field->width); /* little-endian: the low bytes */
    return 0;
}

static int to_f32(encoder *e, uint32_t at, PyObject *value, float *number) {
    const double wide = PyFloat_AsDouble(value);
    if (wide == -1.0 && PyErr_Occurred())
        return refuse(e, at);
    *number = (float)wide;
    return isinf(*number) && !isinf(wide) ? refuse_number(e, at, value) : 0;
}

static int to_f64(encoder *e, uint32_t at, PyObject *value, double *number) {
    *number = PyFloat_AsDouble(value);
    return *number == -1.0 && PyErr_Occurred() ? refuse(e, at) : 0;
}

/* Write a number of the field's element type to `target`, which may be unaligned. */
static int put_float(encoder *e, uint32_t at, PyObject *value, size_t bytes, void *target) {
    float narrow = 0;
    double wide = 0;
    const bool is_wide = bytes == sizeof wide;
    if ((is_wide ? to_f64(e, at, value, &wide) : to_f32(e, at, value, &narrow)) < 0)
        return -1;
    if (is_wide)
        memcpy(target, &wide, sizeof wide);
    else
        memcpy(target, &narrow, sizeof narrow);
    return 0;
}

static int put_bool(encoder *e, uint32_t at, PyObject *value) {
    const int truth = PyObject_IsTrue(value);
    if (truth < 0)
        return refuse(e, at);
    e->image[e->layout->fields[at].offset] = (unsigned char)truth;
    return 0;
}

/* Store a handle. If the ring has an intern table, a handle outside of it is refused, because no
 * consumer could read the record. */
static int put_handle(encoder *e, uint32_t at, PyObject *value) {
    const Py_ssize_t known = PyTuple_Size(e->layout->intern);
    if (put_integer(e, at, value) < 0)
        return -1;
    uint32_t handle;
    memcpy(&handle, e->image + e->layout->fields[at].offset, sizeof handle);
    if (known == 0 || (Py_ssize_t)handle < known)
        return 0;
    PyObject *name = PyUnicode_FromFormat("handle %u", (unsigned)handle);
    if (name != NULL)
        fail(e->self, FAIL_INTERN, (Py_ssize_t)at, name);
    Py_XDECREF(name);
    return -1;
}

/* Store the handle of a string of the intern table, or a handle. */
static int put_ref(encoder *e, uint32_t at, PyObject *value) {
    if (!PyUnicode_Check(value))
        return put_handle(e, at, value);
    PyObject *handles = Py_NewRef(e->layout->handles);
    PyObject *handle = PyDict_GetItemWithError(handles, value);
    int result = -1;
    if (handle != NULL)
        result = put_integer(e, at, handle);
    else if (!PyErr_Occurred())
        fail(e->self, FAIL_INTERN, (Py_ssize_t)at, value);
    Py_DECREF(handles);
    return result;
}

/* ---- payloads ------------------------------------------------------------------------------- */

static int add_payload(encoder *e, uint32_t at, const char *start, Py_ssize_t bytes,
                       PyObject *owner) {
    const strand_field *field = &e->layout->fields[at];
    const uint64_t half = e->self->core.ring.heap_capacity / 2;
    const uint64_t size = (uint64_t)bytes;
    STRAND_INVARIANT(e->payload_count < e->layout->count); /* at most one for each field */
    payload *added = &e->payloads[e->payload_count++];
    added->start = start;
    added->bytes = bytes;
    added->owner = owner;
    added->buffer.obj = NULL;
    added->at = at;
    if (e->layout->version == 5 && size > V5_PAYLOAD_MAX) {
        PyObject *number = PyLong_FromSsize_t(bytes);
        if (number != NULL)
            fail(e->self, FAIL_TOO_LARGE, (Py_ssize_t)at, number);
        Py_XDECREF(number);
        return -1;
    }
    if (size == 0)
        return 0;
    e->filled++;
    e->heap_bytes += size + (size < half ? field->heap_align - 1U : 0);
    if (size > e->largest)
        e->largest = size;
    return 0;
}

static int put_text(encoder *e, uint32_t at, PyObject *text, PyObject *owner) {
    Py_ssize_t bytes;
    const char *start = PyUnicode_AsUTF8AndSize(text, &bytes);
    if (start != NULL)
        return add_payload(e, at, start, bytes, owner);
    Py_XDECREF(owner);
    return refuse(e, at);
}

static int put_json(encoder *e, uint32_t at, PyObject *value) {
    PyObject *text = PyObject_CallFunctionObjArgs(e->self->state->json_dumps, value, NULL);
    if (text == NULL)
        return refuse(e, at);
    return put_text(e, at, text, text);
}

static int put_owned(encoder *e, uint32_t at, PyObject *bytes) {
    if (bytes == NULL)
        return -1;
    return add_payload(e, at, PyBytes_AsString(bytes), PyBytes_Size(bytes), bytes);
}

/* Add a buffer's bytes: in place when they are contiguous, else as a copy in C order. */
static int put_buffer(encoder *e, uint32_t at, Py_buffer *buffer) {
    if (PyBuffer_IsContiguous(buffer, 'C')) {
        const int added = add_payload(e, at, buffer->buf, buffer->len, NULL);
        e->payloads[e->payload_count - 1].buffer = *buffer;
        return added;
    }
    PyObject *copy = PyBytes_FromStringAndSize(NULL, buffer->len);
    if (copy != NULL && PyBuffer_ToContiguous(PyBytes_AsString(copy), buffer, buffer->len, 'C') < 0)
        Py_CLEAR(copy);
    PyBuffer_Release(buffer);
    return put_owned(e, at, copy);
}

static int put_bytes(encoder *e, uint32_t at, PyObject *value) {
    if (Py_IS_TYPE(value, &PyBytes_Type))
        return add_payload(e, at, PyBytes_AsString(value), PyBytes_Size(value), NULL);
    Py_buffer buffer;
    if (PyObject_GetBuffer(value, &buffer, PyBUF_FULL_RO) < 0)
        return refuse(e, at);
    return put_buffer(e, at, &buffer);
}

/* Whether a buffer is one-dimensional with elements of this type. */
static bool is_array_of(const Py_buffer *buffer, const field_type *type) {
    const char *format = buffer->format == NULL ? "B" : buffer->format;
    if (*format == '<' || *format == '=' || *format == '@')
        format++;
    return format[0] != '\0' && strchr(type->formats, format[0]) != NULL && format[1] == '\0' &&
           buffer->itemsize == type->item_bytes && buffer->ndim == 1;
}

static PyObject *pack_numbers(encoder *e, uint32_t at, PyObject *items, const field_type *type) {
    const Py_ssize_t count = PyTuple_Size(items);
    PyObject *packed = PyBytes_FromStringAndSize(NULL, count * type->item_bytes);
    char *end = packed == NULL ? NULL : PyBytes_AsString(packed);
    for (Py_ssize_t i = 0; packed != NULL && i < count; i++, end += type->item_bytes) {
        PyObject *item = PyTuple_GetItem(items, i);
        int64_t integer = 0;
        int result;
        if (type->floating) {
            result = put_float(e, at, item, type->item_bytes, end);
        } else {
            result = to_integer(e, at, item, type->least, type->most, &integer);
            memcpy(end, &integer, type->item_bytes); /* little-endian: the low bytes */
        }
        if (result < 0)
            Py_CLEAR(packed);
    }
    return packed;
}

/* Add an array: a buffer of the element type, or any iterable of numbers. */
static int put_array(encoder *e, uint32_t at, PyObject *value) {
    const field_type *type = &field_types[e->layout->fields[at].tag];
    if (PyObject_CheckBuffer(value)) {
        Py_buffer buffer;
        if (PyObject_GetBuffer(value, &buffer, PyBUF_FULL_RO) < 0)
            return refuse(e, at);
        if (is_array_of(&buffer, type))
            return put_buffer(e, at, &buffer);
        PyErr_Format(PyExc_TypeError, "the buffer holds '%s' in %d dimensions, not '%c' in one",
                     buffer.format == NULL ? "B" : buffer.format, buffer.ndim, type->formats[0]);
        PyBuffer_Release(&buffer);
        return refuse(e, at);
    }
    if (PyUnicode_Check(value))
        return refuse_type(e, at, value, "a sequence of numbers");
    PyObject *items = PySequence_Tuple(value);
    if (items == NULL)
        return refuse(e, at);
    PyObject *packed = pack_numbers(e, at, items, type);
    Py_DECREF(items);
    return put_owned(e, at, packed);
}

/* ---- records -------------------------------------------------------------------------------- */

static int put_value(encoder *e, uint32_t at, PyObject *value) {
    const strand_field *field = &e->layout->fields[at];
    switch ((enum field_kind)field->kind) {
    case KIND_INTEGER:
        return put_integer(e, at, value);
    case KIND_FLOAT:
        return put_float(e, at, value, field->width, e->image + field->offset);
    case KIND_BOOLEAN:
        return put_bool(e, at, value);
    case KIND_HANDLE:
        return put_ref(e, at, value);
    case KIND_TEXT:
        if (!PyUnicode_Check(value))
            return refuse_type(e, at, value, "a str");
        return put_text(e, at, value, NULL);
    case KIND_JSON:
        return put_json(e, at, value);
    case KIND_BYTES:
        return put_bytes(e, at, value);
    case KIND_ARRAY:
        return put_array(e, at, value);
    }
    Py_UNREACHABLE();
}

/* Check the size limits of strand_claim_heap before anything is claimed: the result does not depend
 * on the record's place in the heap, and a record that is too large is refused without waiting. */
static int check_heap(encoder *e) {
    const uint64_t half = e->self->core.ring.heap_capacity / 2;
    if (e->largest <= half && (e->filled < 2 || e->heap_bytes <= half))
        return 0;
    fail_number(e->self, FAIL_TOO_LARGE, e->heap_bytes);
    return -1;
}

int encode(encoder *e, PyObject *record) {
    const layout_object *layout = e->layout;
    memset(e->image, 0, layout->stride);
    e->filled = 0;
    e->heap_bytes = 0;
    e->largest = 0;
    if (PyTuple_Size(record) != (Py_ssize_t)layout->count) {
        fail(e->self, FAIL_RECORD, -1, record);
        return -1;
    }
    for (uint32_t at = 0; at < layout->count; at++) {
        const int32_t bit = layout->fields[at].null_bit;
        PyObject *value = PyTuple_GetItem(record, (Py_ssize_t)at);
        if (value == Py_None) {
            if (bit >= 0)
                continue;
            fail(e->self, FAIL_NULL, (Py_ssize_t)at, NULL);
            return -1;
        }
        if (put_value(e, at, value) < 0)
            return -1;
        if (bit >= 0)
            e->image[bit >> 3] |= (unsigned char)(1U << (bit & 7));
    }
    return check_heap(e);
}
