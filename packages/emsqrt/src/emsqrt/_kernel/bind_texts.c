/* longest_text, measure_texts, gather_texts: decode dictionary-encoded texts. */
#include "native.h"
#include "texts.h"

static bool aligned(const Py_buffer *buffer) {
    return buffer->len == 0 || (uintptr_t)buffer->buf % sizeof(int32_t) == 0;
}

/* Read a dictionary's ends and, unless `bytes` is NULL, its texts; -1 with an exception set. */
static int parse_texts(const Py_buffer *ends, const Py_buffer *bytes, em_texts *texts) {
    const size_t count = (size_t)ends->len / sizeof *texts->ends;
    if (count == 0 || !aligned(ends)) {
        PyErr_SetString(PyExc_ValueError,
                        "a dictionary needs ends of four bytes, one more than it has texts");
        return -1;
    }
    *texts = (em_texts){bytes == NULL ? NULL : bytes->buf, ends->buf, count - 1};
    if (!em_texts_are_within(texts, bytes == NULL ? INT32_MAX : (size_t)bytes->len)) {
        PyErr_SetString(PyExc_ValueError, "a dictionary's ends do not ascend within its bytes");
        return -1;
    }
    return 0;
}

static PyObject *measure(PyObject *module, PyObject *arguments) {
    (void)module;
    Py_buffer places, known, ends;
    if (!PyArg_ParseTuple(arguments, "y*y*w*:measure_texts", &places, &known, &ends)) {
        return NULL;
    }
    const size_t rows = (size_t)places.len / sizeof(int32_t);
    PyObject *result = NULL;
    em_texts texts;
    if ((size_t)ends.len / sizeof(int32_t) <= rows || !aligned(&ends) || !aligned(&places)) {
        PyErr_SetString(PyExc_ValueError, "each index needs four bytes, and each text an end");
    } else if (parse_texts(&known, NULL, &texts) == 0) {
        const int64_t bytes = em_texts_measure(&texts, places.buf, rows, ends.buf);
        if (bytes < 0) {
            PyErr_SetString(PyExc_ValueError,
                            "an index is outside the dictionary, or the texts have 2 GiB or more");
        } else {
            result = PyLong_FromLongLong(bytes);
        }
    }
    PyBuffer_Release(&places);
    PyBuffer_Release(&known);
    PyBuffer_Release(&ends);
    return result;
}

static PyObject *gather_texts(PyObject *module, PyObject *arguments) {
    (void)module;
    Py_buffer places, ends, bytes, out;
    if (!PyArg_ParseTuple(arguments, "y*y*y*w*:gather_texts", &places, &ends, &bytes, &out)) {
        return NULL;
    }
    const size_t rows = (size_t)places.len / sizeof(int32_t);
    em_texts texts;
    bool done = parse_texts(&ends, &bytes, &texts) == 0;
    if (done && (!aligned(&places) ||
                 !em_texts_gather(&texts, places.buf, rows, out.buf, (size_t)out.len))) {
        PyErr_SetString(PyExc_ValueError, "the texts do not have the length that was measured");
        done = false;
    }
    PyBuffer_Release(&places);
    PyBuffer_Release(&ends);
    PyBuffer_Release(&bytes);
    PyBuffer_Release(&out);
    return done ? Py_NewRef(Py_None) : NULL;
}

static PyObject *longest(PyObject *module, PyObject *arguments) {
    (void)module;
    Py_buffer page;
    Py_ssize_t count;
    if (!PyArg_ParseTuple(arguments, "y*n:longest_text", &page, &count)) {
        return NULL;
    }
    const int64_t bytes =
        em_texts_longest(page.buf, (size_t)page.len, count < 0 ? EM_ALL_TEXTS : (size_t)count);
    PyBuffer_Release(&page);
    if (bytes < 0) {
        PyErr_SetString(PyExc_ValueError, "a page ends before its texts do");
        return NULL;
    }
    return PyLong_FromLongLong(bytes);
}

static PyMethodDef functions[] = {
    {"longest_text", longest, METH_VARARGS, NULL},
    {"measure_texts", measure, METH_VARARGS, NULL},
    {"gather_texts", gather_texts, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

int texts_register(PyObject *module) {
    return PyModule_AddFunctions(module, functions);
}
