/* The float sum and the sketch as functions over serialized states. */
#include "native.h"

#include "float_sum.h"
#include "hll.h"

static int load_state(const Py_buffer *buffer, em_float_sum *sum) {
    if (buffer->len == EM_FLOAT_STATE_BYTES && em_float_load(buffer->buf, sum)) {
        return 0;
    }
    PyErr_SetString(PyExc_ValueError, "these bytes are not the state of a float sum");
    return -1;
}

static PyObject *stored(const em_float_sum *sum) {
    uint8_t state[EM_FLOAT_STATE_BYTES];
    em_float_store(state, sum);
    return PyBytes_FromStringAndSize((const char *)state, sizeof state);
}

static PyObject *float_sum(PyObject *module, PyObject *arguments) {
    (void)module;
    Py_buffer values;
    int squares = 0;
    if (!PyArg_ParseTuple(arguments, "y*|p:float_sum", &values, &squares)) {
        return NULL;
    }
    if (values.len % 8 != 0 || (values.len > 0 && (uintptr_t)values.buf % 8 != 0)) {
        PyBuffer_Release(&values);
        PyErr_SetString(PyExc_ValueError, "values must be aligned doubles");
        return NULL;
    }
    em_float_sum sum = EM_FLOAT_EMPTY;
    const size_t count = (size_t)values.len / 8;
    Py_BEGIN_ALLOW_THREADS;
    if (squares) {
        em_float_sum_add_squares(&sum, values.buf, count);
    } else {
        em_float_sum_add(&sum, values.buf, count);
    }
    Py_END_ALLOW_THREADS;
    PyBuffer_Release(&values);
    return stored(&sum);
}

static PyObject *float_sum_merge(PyObject *module, PyObject *argument) {
    (void)module;
    Py_buffer states;
    if (PyObject_GetBuffer(argument, &states, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    em_float_sum total = EM_FLOAT_EMPTY, sum;
    bool good = states.len % EM_FLOAT_STATE_BYTES == 0;
    for (Py_ssize_t at = 0; good && at < states.len; at += EM_FLOAT_STATE_BYTES) {
        good = em_float_load((const uint8_t *)states.buf + at, &sum);
        if (good) {
            em_float_sum_merge(&total, &sum);
        }
    }
    PyBuffer_Release(&states);
    if (!good) {
        PyErr_SetString(PyExc_ValueError, "these bytes are not states of float sums");
        return NULL;
    }
    return stored(&total);
}

static PyObject *float_sum_value(PyObject *module, PyObject *argument) {
    (void)module;
    Py_buffer state;
    em_float_sum sum;
    if (PyObject_GetBuffer(argument, &state, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    const int loaded = load_state(&state, &sum);
    PyBuffer_Release(&state);
    return loaded < 0 ? NULL : PyFloat_FromDouble(em_float_value(&sum));
}

static PyObject *float_sum_variance(PyObject *module, PyObject *arguments) {
    (void)module;
    unsigned long long count;
    Py_buffer total_state, square_state;
    em_float_sum total, squares;
    if (!PyArg_ParseTuple(arguments, "Ky*y*:float_sum_variance", &count, &total_state,
                          &square_state)) {
        return NULL;
    }
    const bool good =
        load_state(&total_state, &total) == 0 && load_state(&square_state, &squares) == 0;
    PyBuffer_Release(&total_state);
    PyBuffer_Release(&square_state);
    if (good && count < 2) {
        Py_RETURN_NONE;
    }
    return good ? PyFloat_FromDouble(em_float_variance(count, &total, &squares)) : NULL;
}

static PyObject *hll_estimate(PyObject *module, PyObject *argument) {
    (void)module;
    Py_buffer state;
    if (PyObject_GetBuffer(argument, &state, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    const int64_t estimate = em_hll_estimate_bytes(state.buf, (size_t)state.len);
    PyBuffer_Release(&state);
    if (estimate < 0) {
        PyErr_SetString(PyExc_ValueError, "these bytes are not a sketch");
        return NULL;
    }
    return PyLong_FromLongLong(estimate);
}

static PyMethodDef methods[] = {
    {"float_sum", float_sum, METH_VARARGS, NULL},
    {"float_sum_merge", float_sum_merge, METH_O, NULL},
    {"float_sum_value", float_sum_value, METH_O, NULL},
    {"float_sum_variance", float_sum_variance, METH_VARARGS, NULL},
    {"hll_estimate", hll_estimate, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

int floats_register(PyObject *module) {
    return PyModule_AddFunctions(module, methods);
}
