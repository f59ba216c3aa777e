/* AggReader(keys, parts, outputs): rows of states to columns. */
#include "bind_aggregate.h"

#include "finish.h"

typedef struct {
    PyObject ob_base;
    parsed_keys keys;
    em_finisher finisher;
} reader_object;

static void reader_dealloc(PyObject *object) {
    reader_object *self = (reader_object *)object;
    release_keys(&self->keys);
    release_parts(&self->finisher.layout);
    PyMem_Free(self->finisher.outputs);
    PyMem_Free(self->finisher.arrays);
    PyMem_Free(self->finisher.packed);
    free_object(object);
}

static int parse_outputs(PyObject *source, em_finisher *finisher) {
    PyObject *list = PySequence_List(source);
    if (list == NULL) {
        return -1;
    }
    const size_t count = (size_t)PyList_Size(list), keys = finisher->keys.count;
    finisher->output_count = count;
    finisher->outputs = PyMem_Calloc(count + 1, sizeof *finisher->outputs);
    finisher->arrays = PyMem_Calloc(count + keys + 1, sizeof *finisher->arrays);
    finisher->packed = PyMem_Calloc((size_t)finisher->layout.count + 1, sizeof *finisher->packed);
    bool failed = finisher->outputs == NULL || finisher->arrays == NULL || finisher->packed == NULL;
    if (failed) {
        PyErr_NoMemory();
    }
    for (size_t i = 0; i < count && !failed; i++) {
        int op, part, kind, scale;
        failed = !PyArg_ParseTuple(PyList_GetItem(list, (Py_ssize_t)i),
                                   "iiii;an output is (op, part, kind, scale)", &op, &part, &kind,
                                   &scale);
        if (!failed &&
            (op < 0 || op >= EM_OUTPUT_OPS || part < 0 || kind < 0 || kind >= EM_KINDS)) {
            PyErr_Format(PyExc_ValueError, "no output has op %d, part %d and kind %d", op, part,
                         kind);
            failed = true;
        }
        if (!failed) {
            finisher->outputs[i] =
                (em_output){(enum em_output_op)op, (uint32_t)part, (enum em_kind)kind, scale};
            finisher->arrays[keys + i].kind = (enum em_kind)kind;
        }
    }
    Py_DECREF(list);
    if (!failed && !em_finisher_check(finisher)) {
        PyErr_SetString(PyExc_ValueError, "an output cannot be computed from its part");
        failed = true;
    }
    return failed ? -1 : 0;
}

static PyObject *reader_new(PyTypeObject *type, PyObject *arguments, PyObject *names) {
    (void)names;
    PyObject *keys, *parts, *outputs;
    if (!PyArg_ParseTuple(arguments, "OOO:AggReader", &keys, &parts, &outputs)) {
        return NULL;
    }
    reader_object *self = new_object(type);
    if (self == NULL || parse_keys(keys, &self->keys) < 0 ||
        parse_parts(parts, &self->finisher.layout) < 0) {
        Py_XDECREF((PyObject *)self);
        return NULL;
    }
    self->finisher.keys = self->keys.spec;
    if (parse_outputs(outputs, &self->finisher) < 0) {
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    for (size_t i = 0; i < self->keys.spec.count; i++) {
        self->finisher.arrays[i].kind = self->keys.kinds[i];
    }
    return (PyObject *)self;
}

static PyObject *raise_fault(const em_finisher *finisher) {
    switch (finisher->fault) {
    case EM_FINISH_NO_ROOM:
        PyErr_SetString(PyExc_MemoryError, "a group does not fit the memory for its columns");
        break;
    case EM_FINISH_OVERFLOW: {
        PyObject *output = PyLong_FromSize_t(finisher->fault_output);
        PyErr_SetObject(PyExc_OverflowError, output);
        Py_XDECREF(output);
        break;
    }
    default:
        PyErr_SetString(PyExc_ValueError, "rows of states are damaged");
    }
    return NULL;
}

static PyObject *span_of(const uint8_t *base, const void *from, size_t bytes) {
    const Py_ssize_t start = (const uint8_t *)from - base;
    return Py_BuildValue("(nn)", start, start + (Py_ssize_t)bytes);
}

/* Return (kind, null count, validity, values, ends); each of the last three is a span of the
 * memory, ends may be None. */
static PyObject *describe(const em_array *array, size_t rows, const uint8_t *base) {
    PyObject *ends = Py_None;
    if (array->ends == NULL) {
        Py_INCREF(ends);
    } else {
        ends = span_of(base, array->ends, (rows + 1) * sizeof(int32_t));
    }
    return Py_BuildValue("inNNN", (int)array->kind, (Py_ssize_t)array->null_count,
                         span_of(base, array->validity, (rows + 7) / 8),
                         span_of(base, array->values, em_array_values_bytes(array, rows)), ends);
}

static PyObject *describe_all(const em_finisher *finisher, size_t rows, size_t consumed) {
    const size_t count = finisher->keys.count + finisher->output_count;
    PyObject *list = PyList_New(0);
    for (size_t i = 0; i < count && rows > 0 && list != NULL; i++) {
        PyObject *array = describe(&finisher->arrays[i], rows, finisher->memory);
        if (array == NULL || PyList_Append(list, array) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(array);
    }
    return list == NULL ? NULL : Py_BuildValue("nnN", (Py_ssize_t)rows, (Py_ssize_t)consumed, list);
}

static PyObject *reader_read(PyObject *object, PyObject *arguments) {
    em_finisher *finisher = &((reader_object *)object)->finisher;
    Py_buffer rows, out;
    Py_ssize_t start;
    PyObject *out_object;
    if (!PyArg_ParseTuple(arguments, "y*nO:read", &rows, &start, &out_object)) {
        return NULL;
    }
    if (PyObject_GetBuffer(out_object, &out, PyBUF_WRITABLE) < 0) {
        PyBuffer_Release(&rows);
        return NULL;
    }
    PyObject *result = NULL;
    if (start < 0 || start > rows.len) {
        PyErr_Format(PyExc_ValueError, "byte %zd is outside a block of %zd bytes", start, rows.len);
    } else {
        size_t count, consumed = 0;
        finisher->memory = out.buf;
        finisher->memory_bytes = (size_t)out.len;
        Py_BEGIN_ALLOW_THREADS;
        count = em_finish(finisher, (const uint8_t *)rows.buf + start, (size_t)(rows.len - start),
                          &consumed);
        Py_END_ALLOW_THREADS;
        result = finisher->fault == EM_FINISH_OK
                     ? describe_all(finisher, count, (size_t)start + consumed)
                     : raise_fault(finisher);
    }
    PyBuffer_Release(&out);
    PyBuffer_Release(&rows);
    return result;
}

static PyMethodDef reader_methods[] = {
    {"read", reader_read, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};
static PyType_Slot reader_slots[] = {
    {Py_tp_doc,
     "AggReader(keys, parts, outputs)\n--\n\nReads rows of states as columns; see finish.h."},
    {Py_tp_new, reader_new},
    {Py_tp_dealloc, reader_dealloc},
    {Py_tp_methods, reader_methods},
    {0, NULL},
};
static PyType_Spec reader_spec = {
    .name = "emsqrt._kernel.AggReader",
    .basicsize = sizeof(reader_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = reader_slots,
};

int finish_register(PyObject *module) {
    PyObject *type = PyType_FromSpec(&reader_spec);
    const int added = type == NULL ? -1 : PyModule_AddObjectRef(module, "AggReader", type);
    Py_XDECREF(type);
    return added;
}
