/* copy_column and copy_lines: the contents of a batch as Python objects, for tests and small
 * results. */
#include "native.h"

#include <string.h>

static void copy_bits(const uint8_t *bits, size_t offset, size_t rows, uint8_t *out) {
    for (size_t row = 0; row < rows; row++) {
        out[row >> 3] = (uint8_t)(out[row >> 3] | em_bit(bits, offset + row) << (row & 7));
    }
}

static PyObject *bits_of(const uint8_t *bits, size_t offset, size_t rows) {
    PyObject *copy = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)((rows + 7) / 8));
    if (copy != NULL) {
        uint8_t *out = (uint8_t *)PyBytes_AsString(copy);
        memset(out, 0, (rows + 7) / 8);
        copy_bits(bits, offset, rows, out);
    }
    return copy;
}

static PyObject *bytes_of(const void *start, size_t size) {
    return PyBytes_FromStringAndSize(size == 0 ? "" : start, (Py_ssize_t)size);
}

static PyObject *ends_of(const int32_t *ends, size_t rows) {
    PyObject *copy = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)((rows + 1) * sizeof *ends));
    if (copy != NULL) {
        int32_t *out = (int32_t *)(void *)PyBytes_AsString(copy);
        for (size_t row = 0; row <= rows; row++) {
            out[row] = rows == 0 ? 0 : ends[row] - ends[0];
        }
    }
    return copy;
}

static PyObject *copy_column(PyObject *module, PyObject *arguments) {
    (void)module;
    PyObject *object;
    Py_ssize_t index;
    if (!PyArg_ParseTuple(arguments, "On:copy_column", &object, &index)) {
        return NULL;
    }
    const em_columns *view = columns_view(object);
    if (view == NULL) {
        return NULL;
    }
    if (index < 0 || (size_t)index >= view->column_count) {
        return PyErr_Format(PyExc_IndexError, "no column %zd among %zu", index, view->column_count);
    }
    const em_column *column = &view->columns[index];
    const size_t rows = view->row_count, width = em_width(column->kind);
    PyObject *validity = Py_None, *values, *ends = Py_None;
    Py_INCREF(Py_None);
    Py_INCREF(Py_None);
    if (column->validity != NULL && rows > 0) {
        Py_DECREF(Py_None);
        validity = bits_of(column->validity, column->offset, rows);
    }
    if (column->kind == EM_TEXT || column->kind == EM_BYTES) {
        const int32_t *from = rows == 0 ? NULL : column->ends + column->offset;
        Py_DECREF(Py_None);
        ends = ends_of(from, rows);
        values = rows == 0 ? bytes_of(NULL, 0)
                           : bytes_of(column->values + from[0], (size_t)(from[rows] - from[0]));
    } else if (column->kind == EM_BOOL) {
        values = bits_of(column->values, column->offset, rows);
    } else {
        values = rows == 0 ? bytes_of(NULL, 0)
                           : bytes_of(column->values + column->offset * width, rows * width);
    }
    return Py_BuildValue("iNNN", (int)column->kind, validity, values, ends);
}

static PyObject *copy_lines(PyObject *module, PyObject *object) {
    (void)module;
    const em_columns *view = columns_view(object);
    if (view == NULL) {
        return NULL;
    }
    if (view->lines == NULL && view->row_count > 0) {
        PyErr_SetString(PyExc_ValueError, "these columns were not parsed from text");
        return NULL;
    }
    PyObject *list = PyList_New(0);
    for (size_t row = 0; list != NULL && row < view->row_count; row++) {
        PyObject *line = bytes_of(view->text + view->lines[row].start, view->lines[row].size);
        if (line == NULL || PyList_Append(list, line) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(line);
    }
    return list;
}

static PyMethodDef functions[] = {
    {"copy_column", copy_column, METH_VARARGS,
     "Return (kind, validity, values, ends) of a column as bytes; None for a buffer that it "
     "lacks."},
    {"copy_lines", copy_lines, METH_O, "Return each row's record, without its line end."},
    {NULL, NULL, 0, NULL},
};

int copies_register(PyObject *module) {
    return PyModule_AddFunctions(module, functions);
}
