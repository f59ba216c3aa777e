/* RowStore and write_lines: collect rows in the caller's memory, sort them, copy them out. */
#include "bind_rows.h"

typedef struct {
    PyObject ob_base;
    Py_buffer memory;
    em_store store;
    bool busy; /* a loop runs without the GIL */
} store_object;

int parse_payload(PyObject *source, const em_columns *columns, em_payload *payload) {
    *payload = (em_payload){EM_PAYLOAD_NONE, 0, NULL};
    if (source == Py_None) {
        return 0;
    }
    if (PyUnicode_Check(source)) {
        payload->shape = EM_PAYLOAD_LINE;
        if (PyUnicode_CompareWithASCIIString(source, "line") != 0 || columns->lines == NULL) {
            PyErr_SetString(PyExc_ValueError, "a payload is None, \"line\" of columns that were "
                                              "parsed from text, or column indices");
            return -1;
        }
        return 0;
    }
    PyObject *list = PySequence_List(source);
    if (list == NULL) {
        return -1;
    }
    const Py_ssize_t count = PyList_Size(list);
    uint32_t *indices = PyMem_Calloc((size_t)count + 1, sizeof *indices);
    *payload = (em_payload){EM_PAYLOAD_COLUMNS, (size_t)count, indices};
    bool failed = indices == NULL;
    for (Py_ssize_t i = 0; i < count && !failed; i++) {
        const size_t index = PyLong_AsSize_t(PyList_GetItem(list, i));
        failed = index >= columns->column_count;
        indices[i] = (uint32_t)index;
    }
    Py_DECREF(list);
    if (failed) {
        release_payload(payload);
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_ValueError, "a payload names a column that does not exist");
        }
        return -1;
    }
    return 0;
}

void release_payload(em_payload *payload) {
    PyMem_Free((void *)payload->columns);
    payload->columns = NULL;
}

static PyThreadState *begin(store_object *self) {
    self->busy = true;
    return PyEval_SaveThread();
}

static void finish(store_object *self, PyThreadState *state) {
    PyEval_RestoreThread(state);
    self->busy = false;
}

/* Check that no other thread uses the store, and that it is sorted or not as the call needs; -1
 * with an exception set. */
static int check_state(const store_object *self, bool sorted) {
    if (self->busy) {
        PyErr_SetString(PyExc_RuntimeError, "another thread uses this store");
    } else if (sorted != (self->store.order != NULL)) {
        PyErr_SetString(PyExc_RuntimeError,
                        sorted ? "sort the store first"
                               : "the store is sorted: reset it before more rows are added");
    } else {
        return 0;
    }
    return -1;
}

static PyObject *store_new(PyTypeObject *type, PyObject *arguments, PyObject *names) {
    (void)names;
    Py_buffer memory;
    if (!PyArg_ParseTuple(arguments, "w*:RowStore", &memory)) {
        return NULL;
    }
    const allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    store_object *self = (store_object *)allocate(type, 0);
    if (self == NULL) {
        PyBuffer_Release(&memory);
        return NULL;
    }
    self->memory = memory;
    em_store_open(&self->store, memory.buf, (size_t)memory.len);
    return (PyObject *)self;
}

static void store_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    PyBuffer_Release(&((store_object *)object)->memory);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

static PyObject *store_add(PyObject *object, PyObject *arguments, PyObject *names) {
    static char *keywords[] = {"", "", "", "start", "sequence", NULL};
    store_object *self = (store_object *)object;
    PyObject *batch, *keys, *payload_argument, *sequence_argument = Py_None;
    Py_ssize_t start = 0;
    if (!PyArg_ParseTupleAndKeywords(arguments, names, "OOO|nO:add", keywords, &batch, &keys,
                                     &payload_argument, &start, &sequence_argument)) {
        return NULL;
    }
    uint64_t sequence = 0;
    if (sequence_argument != Py_None) {
        sequence = PyLong_AsUnsignedLongLong(sequence_argument);
        if (PyErr_Occurred()) {
            return NULL;
        }
    }
    const em_columns *columns = columns_view(batch);
    const em_key_spec *spec = columns == NULL ? NULL : key_spec_view(keys, columns);
    em_payload payload;
    if (spec == NULL || parse_payload(payload_argument, columns, &payload) < 0) {
        return NULL;
    }
    size_t added = 0;
    bool failed = check_state(self, false) < 0;
    if (!failed && (start < 0 || (size_t)start > columns->row_count)) {
        PyErr_Format(PyExc_ValueError, "no row %zd of %zu", start, columns->row_count);
        failed = true;
    }
    if (!failed) {
        columns_hold(batch);
        PyThreadState *state = begin(self);
        added = em_store_add(&self->store, columns, spec, &payload, (size_t)start,
                             sequence_argument == Py_None ? NULL : &sequence);
        finish(self, state);
        columns_release(batch);
    }
    release_payload(&payload);
    return failed ? NULL : PyLong_FromSize_t(added);
}

static PyObject *store_add_rows(PyObject *object, PyObject *arguments) {
    store_object *self = (store_object *)object;
    Py_buffer block;
    Py_ssize_t start = 0;
    if (!PyArg_ParseTuple(arguments, "y*|n:add_rows", &block, &start)) {
        return NULL;
    }
    size_t consumed = SIZE_MAX;
    bool failed = check_state(self, false) < 0;
    if (!failed && start >= 0 && start <= block.len) {
        PyThreadState *state = begin(self);
        consumed = em_store_add_rows(&self->store, (const uint8_t *)block.buf + start,
                                     (size_t)(block.len - start));
        finish(self, state);
    }
    PyBuffer_Release(&block);
    if (!failed && consumed == SIZE_MAX) {
        PyErr_SetString(PyExc_ValueError, "the block does not consist of whole rows");
        failed = true;
    }
    return failed ? NULL : PyLong_FromSize_t(consumed);
}

static PyObject *store_row_bytes(PyObject *object, PyObject *arguments) {
    (void)object;
    PyObject *batch, *keys, *payload_argument;
    Py_ssize_t row;
    int sequenced = 0;
    if (!PyArg_ParseTuple(arguments, "OOOn|p:row_bytes", &batch, &keys, &payload_argument, &row,
                          &sequenced)) {
        return NULL;
    }
    const em_columns *columns = columns_view(batch);
    const em_key_spec *spec = columns == NULL ? NULL : key_spec_view(keys, columns);
    em_payload payload;
    if (spec == NULL || check_row(columns, row) < 0 ||
        parse_payload(payload_argument, columns, &payload) < 0) {
        return NULL;
    }
    const size_t bytes = em_store_row_bytes(columns, spec, &payload, (size_t)row, sequenced != 0);
    release_payload(&payload);
    return PyLong_FromSize_t(bytes);
}

static PyObject *store_sort(PyObject *object, PyObject *none) {
    (void)none;
    store_object *self = (store_object *)object;
    if (check_state(self, false) < 0) {
        return NULL;
    }
    PyThreadState *state = begin(self);
    em_store_sort(&self->store);
    finish(self, state);
    Py_RETURN_NONE;
}

static PyObject *store_drain(PyObject *object, PyObject *arguments, PyObject *names) {
    static char *keywords[] = {"", "", "", "ending", NULL};
    store_object *self = (store_object *)object;
    Py_buffer out;
    Py_ssize_t start, stop;
    const char *ending = NULL;
    Py_ssize_t ending_bytes = 0;
    if (!PyArg_ParseTupleAndKeywords(arguments, names, "w*nn|z#:drain", keywords, &out, &start,
                                     &stop, &ending, &ending_bytes)) {
        return NULL;
    }
    em_drained done = {0, 0};
    bool failed = check_state(self, true) < 0;
    if (!failed && (start < 0 || stop < start || (size_t)stop > self->store.rows)) {
        PyErr_Format(PyExc_ValueError, "no rows %zd to %zd of %zu", start, stop, self->store.rows);
        failed = true;
    }
    if (!failed) {
        PyThreadState *state = begin(self);
        const em_store *store = &self->store;
        done =
            ending == NULL
                ? em_store_drain(store, (size_t)start, (size_t)stop, out.buf, (size_t)out.len)
                : em_store_drain_lines(store, (size_t)start, (size_t)stop, out.buf, (size_t)out.len,
                                       (const uint8_t *)ending, (size_t)ending_bytes);
        finish(self, state);
    }
    PyBuffer_Release(&out);
    return failed ? NULL : Py_BuildValue("(nn)", (Py_ssize_t)done.bytes, (Py_ssize_t)done.rows);
}

static PyObject *store_row_span(PyObject *object, PyObject *position) {
    store_object *self = (store_object *)object;
    const size_t row = PyLong_AsSize_t(position);
    if (PyErr_Occurred() || check_state(self, true) < 0) {
        return NULL;
    }
    if (row >= self->store.rows) {
        return PyErr_Format(PyExc_ValueError, "no row %zu of %zu", row, self->store.rows);
    }
    const uint8_t *at = em_store_row(&self->store, row);
    const Py_ssize_t start = at - self->store.memory;
    return Py_BuildValue("(nn)", start, start + (Py_ssize_t)em_row_bytes(at));
}

static PyObject *store_keep(PyObject *object, PyObject *arguments, PyObject *names) {
    static char *keywords[] = {"", "bounding", NULL};
    store_object *self = (store_object *)object;
    Py_ssize_t count;
    int bounding = 0;
    if (!PyArg_ParseTupleAndKeywords(arguments, names, "n|p:keep", keywords, &count, &bounding) ||
        check_state(self, true) < 0) {
        return NULL;
    }
    if (count < 0) {
        return PyErr_Format(PyExc_ValueError, "a store cannot keep %zd rows", count);
    }
    em_store_keep(&self->store, (size_t)count, bounding != 0);
    Py_RETURN_NONE;
}

static PyObject *store_reset(PyObject *object, PyObject *none) {
    (void)none;
    store_object *self = (store_object *)object;
    if (self->busy) {
        return check_state(self, false), NULL;
    }
    em_store_reset(&self->store);
    Py_RETURN_NONE;
}

static PyObject *store_follow(PyObject *object, PyObject *argument) {
    store_object *self = (store_object *)object, *before = (store_object *)argument;
    if (Py_TYPE(argument) != Py_TYPE(object)) {
        PyErr_SetString(PyExc_TypeError, "expected a RowStore");
        return NULL;
    }
    if (self->busy || before->busy) {
        return check_state(self->busy ? self : before, false), NULL;
    }
    self->store.differences = before->store.differences;
    self->store.row_bytes_max = before->store.row_bytes_max;
    Py_RETURN_NONE;
}

/* Return the store for reading a property; NULL with an exception set while another thread changes
 * it. */
static const em_store *idle_store(PyObject *object) {
    const store_object *self = (store_object *)object;
    if (self->busy) {
        PyErr_SetString(PyExc_RuntimeError, "another thread uses this store");
        return NULL;
    }
    return &self->store;
}

static PyObject *get_rows(PyObject *object, void *none) {
    (void)none;
    const em_store *store = idle_store(object);
    return store == NULL ? NULL : PyLong_FromSize_t(store->rows);
}

static PyObject *get_used_bytes(PyObject *object, void *none) {
    (void)none;
    const em_store *store = idle_store(object);
    return store == NULL ? NULL : PyLong_FromSize_t(store->used);
}

static PyObject *get_payload_bytes(PyObject *object, void *none) {
    (void)none;
    const em_store *store = idle_store(object);
    return store == NULL ? NULL : PyLong_FromSize_t(store->payload);
}

static PyObject *get_row_bytes_max(PyObject *object, void *none) {
    (void)none;
    const em_store *store = idle_store(object);
    return store == NULL ? NULL : PyLong_FromSize_t(store->row_bytes_max);
}

static PyObject *get_positions(PyObject *object, void *none) {
    (void)none;
    const em_store *store = idle_store(object);
    if (store == NULL) {
        return NULL;
    }
    const em_positions positions = em_key_differences_positions(&store->differences);
    uint8_t text[1 + EM_PREFIX_BYTES] = {positions.decides};
    for (uint32_t i = 0; i < positions.count; i++) {
        text[1 + i] = (uint8_t)positions.at[i];
    }
    return PyBytes_FromStringAndSize((const char *)text, 1 + (Py_ssize_t)positions.count);
}

static PyMethodDef store_methods[] = {
    {"add", (PyCFunction)(void (*)(void))store_add, METH_VARARGS | METH_KEYWORDS,
     "add($self, columns, keys, payload, /, start=0, sequence=None)\n--\n\nAdd rows from `start` "
     "until memory is full; return how many were added."},
    {"add_rows", store_add_rows, METH_VARARGS,
     "add_rows($self, block, start=0, /)\n--\n\nAdd whole rows; return the bytes consumed."},
    {"row_bytes", store_row_bytes, METH_VARARGS,
     "row_bytes($self, columns, keys, payload, row, sequenced=False, /)\n--\n\nReturn the bytes of "
     "one row as add writes it."},
    {"sort", store_sort, METH_NOARGS, "sort($self, /)\n--\n\nSort the rows by key, stable."},
    {"drain", (PyCFunction)(void (*)(void))store_drain, METH_VARARGS | METH_KEYWORDS,
     "drain($self, out, start, stop, /, ending=None)\n--\n\nCopy sorted rows "
     "[start, stop) into "
     "`out`, or their payloads each followed by `ending`: (bytes, rows)."},
    {"row_span", store_row_span, METH_O,
     "row_span($self, position, /)\n--\n\nReturn the span of a sorted row in memory: (start, "
     "stop)."},
    {"keep", (PyCFunction)(void (*)(void))store_keep, METH_VARARGS | METH_KEYWORDS,
     "keep($self, count, /, bounding=False)\n--\n\nKeep the first `count` sorted rows, and accept "
     "more."},
    {"reset", store_reset, METH_NOARGS, "reset($self, /)\n--\n\nDrop all rows."},
    {"follow", store_follow, METH_O,
     "follow($self, before, /)\n--\n\nContinue the statistics (`positions`, `row_bytes_max`) of "
     "another store."},
    {NULL, NULL, 0, NULL},
};
static PyGetSetDef store_fields[] = {
    {"rows", get_rows, NULL, "Rows held.", NULL},
    {"used_bytes", get_used_bytes, NULL, "Bytes of the rows held.", NULL},
    {"payload_bytes", get_payload_bytes, NULL, "Bytes of their payloads.", NULL},
    {"row_bytes_max", get_row_bytes_max, NULL, "Bytes of the longest row ever added.", NULL},
    {"positions", get_positions, NULL, "Positions where the keys ever added differ, for a Merger.",
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
static PyType_Slot store_slots[] = {
    {Py_tp_doc, "RowStore(memory)\n--\n\nCollects rows in memory, sorts them, and copies them out; "
                "see store.h."},
    {Py_tp_new, store_new},
    {Py_tp_dealloc, store_dealloc},
    {Py_tp_methods, store_methods},
    {Py_tp_getset, store_fields},
    {0, NULL},
};
static PyType_Spec store_spec = {
    .name = "emsqrt._kernel.RowStore",
    .basicsize = sizeof(store_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = store_slots,
};

static PyObject *write_lines(PyObject *module, PyObject *arguments) {
    (void)module;
    Py_buffer block, out;
    Py_ssize_t start, ending_bytes;
    const char *ending;
    if (!PyArg_ParseTuple(arguments, "y*nw*y#:write_lines", &block, &start, &out, &ending,
                          &ending_bytes)) {
        return NULL;
    }
    size_t consumed = SIZE_MAX;
    em_drained done = {0, 0};
    if (start >= 0 && start <= block.len) {
        done = em_write_lines((const uint8_t *)block.buf + start, (size_t)(block.len - start),
                              out.buf, (size_t)out.len, (const uint8_t *)ending,
                              (size_t)ending_bytes, &consumed);
    }
    PyBuffer_Release(&block);
    PyBuffer_Release(&out);
    if (consumed == SIZE_MAX) {
        PyErr_SetString(PyExc_ValueError, "the block does not consist of whole rows");
        return NULL;
    }
    return Py_BuildValue("(nnn)", (Py_ssize_t)done.bytes, (Py_ssize_t)done.rows,
                         start + (Py_ssize_t)consumed);
}

static PyMethodDef functions[] = {
    {"write_lines", write_lines, METH_VARARGS,
     "write_lines($module, block, start, out, ending, /)\n--\n\nWrite the payloads of rows, each "
     "followed by `ending`: (bytes, rows, next start)."},
    {NULL, NULL, 0, NULL},
};

int store_register(PyObject *module) {
    PyObject *type = PyType_FromSpec(&store_spec);
    if (type == NULL || PyModule_AddObjectRef(module, "RowStore", type) < 0) {
        Py_XDECREF(type);
        return -1;
    }
    Py_DECREF(type);
    return PyModule_AddFunctions(module, functions);
}
