/* Convert lists and tuples of Python values to column buffers (sources.py).
 *
 * One pass over the objects appends the bytes of each value to one buffer and stores the end
 * offset. All values are copied before a slot is claimed, so a value that does not fit leaves the
 * ring unchanged.
 */
#include <string.h>

#include "_native.h"

enum { GUESSED_BYTES = 16 }; /* initial size of the buffer for each value */

/* A bytearray that grows by doubling: bytes in use, and capacity. */
typedef struct {
    PyObject *bytes;
    char *start;
    size_t used;
    size_t room;
} buffer;

static int resize(buffer *to, size_t room) {
    if (room > PTRDIFF_MAX || PyByteArray_Resize(to->bytes, (Py_ssize_t)room) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    to->start = PyByteArray_AsString(to->bytes);
    to->room = room;
    return 0;
}

static int append(buffer *to, const char *from, size_t bytes) {
    if (bytes > to->room - to->used && resize(to, 2 * to->room + bytes) < 0)
        return -1;
    memcpy(to->start + to->used, from, bytes);
    to->used += bytes;
    return 0;
}

static Py_ssize_t length_of(PyObject *values) {
    return PyList_Check(values) ? PyList_Size(values) : PyTuple_Size(values);
}

/* Return a borrowed item; IndexError if another thread has shortened the list meanwhile. */
static PyObject *item_of(PyObject *values, Py_ssize_t at) {
    return PyList_Check(values) ? PyList_GetItem(values, at) : PyTuple_GetItem(values, at);
}

static bool is_sequence(PyObject *values) {
    if (PyList_Check(values) || PyTuple_Check(values))
        return true;
    PyErr_SetString(PyExc_TypeError, "a list or a tuple is needed");
    return false;
}

/* ---- one value ------------------------------------------------------------------------------ */

static int refuse_item(PyObject *item, Py_ssize_t at, const char *wanted) {
    PyObject *name = PyType_GetName(Py_TYPE(item));
    if (name != NULL)
        PyErr_Format(PyExc_TypeError, "value %zd is %U, not %s", at, name, wanted);
    Py_XDECREF(name);
    return -1;
}

static int append_text(buffer *to, PyObject *item, Py_ssize_t at) {
    if (!PyUnicode_Check(item))
        return refuse_item(item, at, "str");
    Py_ssize_t bytes;
    const char *start = PyUnicode_AsUTF8AndSize(item, &bytes);
    return start == NULL ? -1 : append(to, start, (size_t)bytes);
}

static int append_bytes(buffer *to, PyObject *item, Py_ssize_t at) {
    if (Py_IS_TYPE(item, &PyBytes_Type))
        return append(to, PyBytes_AsString(item), (size_t)PyBytes_Size(item));
    if (!PyObject_CheckBuffer(item))
        return refuse_item(item, at, "bytes or a buffer of them");
    Py_buffer view;
    Py_INCREF(item); /* the object's buffer code may change the list */
    int result = PyObject_GetBuffer(item, &view, PyBUF_SIMPLE);
    if (result == 0) {
        result = append(to, view.buf, (size_t)view.len);
        PyBuffer_Release(&view);
    }
    Py_DECREF(item);
    return result;
}

/* ---- module functions ----------------------------------------------------------------------- */

/* find_nulls(values): one byte for each value, 1 for None; None if no value is None. */
PyObject *native_find_nulls(PyObject *Py_UNUSED(module), PyObject *values) {
    if (!is_sequence(values))
        return NULL;
    const Py_ssize_t count = length_of(values);
    PyObject *found = NULL;
    char *flags = NULL;
    for (Py_ssize_t at = 0; at < count; at++) {
        const PyObject *item = item_of(values, at);
        if (item == NULL) {
            Py_XDECREF(found);
            return NULL;
        }
        if (item != Py_None)
            continue;
        if (found == NULL) {
            found = PyBytes_FromStringAndSize(NULL, count);
            if (found == NULL)
                return NULL;
            flags = PyBytes_AsString(found);
            memset(flags, 0, (size_t)count);
        }
        flags[at] = 1;
    }
    return found == NULL ? Py_NewRef(Py_None) : found;
}

static int flatten(PyObject *values, Py_ssize_t count, const Py_buffer *absent, bool text,
                   buffer *to, int64_t *offsets) {
    for (Py_ssize_t at = 0; at < count; at++) {
        offsets[at] = (int64_t)to->used;
        if (absent->buf != NULL && ((const char *)absent->buf)[at] != 0)
            continue;
        PyObject *item = item_of(values, at);
        if (item == NULL)
            return -1;
        if ((text ? append_text(to, item, at) : append_bytes(to, item, at)) < 0)
            return -1;
    }
    offsets[count] = (int64_t)to->used;
    return resize(to, to->used);
}

/* flatten(values, absent, text): (data, 64-bit offsets, one more than there are values).
 *
 * `absent` is None, or one byte for each value, nonzero to leave the value out; values are strings
 * if `text` is true, else bytes. */
PyObject *native_flatten(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *values, *absent;
    int text;
    if (!PyArg_ParseTuple(args, "OOp", &values, &absent, &text) || !is_sequence(values))
        return NULL;
    Py_buffer mask = {0};
    if (absent != Py_None && PyObject_GetBuffer(absent, &mask, PyBUF_SIMPLE) < 0)
        return NULL;
    const Py_ssize_t count = length_of(values);
    PyObject *offsets = NULL;
    buffer to = {PyByteArray_FromStringAndSize(NULL, 0), NULL, 0, 0};
    PyObject *answer = NULL;
    if (mask.buf != NULL && mask.len != count)
        PyErr_SetString(PyExc_ValueError, "the mask needs one byte for each value");
    else if (to.bytes != NULL && resize(&to, (size_t)count * GUESSED_BYTES) == 0)
        offsets = PyByteArray_FromStringAndSize(NULL, (count + 1) * (Py_ssize_t)sizeof(int64_t));
    /* bytearrays are aligned by malloc, so int64_t may be written directly */
    if (offsets != NULL && flatten(values, count, &mask, text != 0, &to,
                                   (int64_t *)(void *)PyByteArray_AsString(offsets)) == 0)
        answer = PyTuple_Pack(2, to.bytes, offsets);
    if (mask.obj != NULL)
        PyBuffer_Release(&mask);
    Py_XDECREF(offsets);
    Py_XDECREF(to.bytes);
    return answer;
}
