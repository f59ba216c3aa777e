/* csv_last_record_end and csv_record_end: the ends of records in a buffer. */
#include "native.h"

#include "csv.h"

static int read_dialect(int delimiter, int quote, em_dialect *dialect) {
    if (delimiter < 0 || delimiter > 127 || quote < -1 || quote > 127) {
        PyErr_SetString(PyExc_ValueError, "delimiter and quote are ASCII codes; no quote is -1");
        return -1;
    }
    *dialect = (em_dialect){(uint8_t)delimiter, (int16_t)quote};
    return 0;
}

static PyObject *last_record_end(PyObject *module, PyObject *arguments) {
    (void)module;
    Py_buffer data;
    Py_ssize_t size;
    int delimiter, quote;
    em_dialect dialect;
    if (!PyArg_ParseTuple(arguments, "y*nii:csv_last_record_end", &data, &size, &delimiter,
                          &quote)) {
        return NULL;
    }
    PyObject *answer = NULL;
    if (size < 0 || size > data.len) {
        PyErr_Format(PyExc_ValueError, "size %zd is outside a buffer of %zd bytes", size, data.len);
    } else if (read_dialect(delimiter, quote, &dialect) == 0) {
        size_t end;
        Py_BEGIN_ALLOW_THREADS;
        end = em_csv_last_end(data.buf, (size_t)size, dialect);
        Py_END_ALLOW_THREADS;
        answer = PyLong_FromSize_t(end);
    }
    PyBuffer_Release(&data);
    return answer;
}

static PyObject *record_end(PyObject *module, PyObject *arguments) {
    (void)module;
    Py_buffer data;
    Py_ssize_t start, size;
    int delimiter, quote;
    em_dialect dialect;
    if (!PyArg_ParseTuple(arguments, "y*nnii:csv_record_end", &data, &start, &size, &delimiter,
                          &quote)) {
        return NULL;
    }
    PyObject *answer = NULL;
    if (start < 0 || size < start || size > data.len) {
        PyErr_Format(PyExc_ValueError, "bytes %zd to %zd are outside a buffer of %zd bytes", start,
                     size, data.len);
    } else if (read_dialect(delimiter, quote, &dialect) == 0) {
        answer = PyLong_FromSize_t(em_csv_next_end(data.buf, (size_t)start, (size_t)size, dialect));
    }
    PyBuffer_Release(&data);
    return answer;
}

static PyMethodDef functions[] = {
    {"csv_last_record_end", last_record_end, METH_VARARGS,
     "Return the end of the last complete record in data[:size], which starts at a record; or 0."},
    {"csv_record_end", record_end, METH_VARARGS,
     "Return the end of the record at data[start:size], or 0 when it has none there."},
    {NULL, NULL, 0, NULL},
};

int csv_split_register(PyObject *module) {
    return PyModule_AddFunctions(module, functions);
}
