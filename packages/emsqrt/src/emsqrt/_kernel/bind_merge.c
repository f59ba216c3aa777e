/* Merger and merger_bytes: merge sorted runs of rows. */
#include "native.h"

#include "merge.h"
#include "rows.h"

typedef struct {
    PyObject ob_base;
    Py_buffer memory;
    em_merger merger;
    size_t *starts; /* sources + 1: where each source's part of the memory starts */
    bool busy;
} merger_object;

static void merger_dealloc(PyObject *object) {
    merger_object *self = (merger_object *)object;
    PyTypeObject *type = Py_TYPE(object);
    if (self->memory.obj != NULL) {
        PyBuffer_Release(&self->memory);
    }
    PyMem_Free(self->starts);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

static int parse_positions(const char *text, Py_ssize_t bytes, em_positions *positions) {
    *positions = (em_positions){0};
    if (text == NULL) {
        return 0;
    }
    if (bytes < 1 || bytes > 1 + (Py_ssize_t)EM_PREFIX_BYTES) {
        PyErr_SetString(PyExc_ValueError, "positions must come from RowStore.positions");
        return -1;
    }
    positions->decides = text[0] != 0;
    for (Py_ssize_t i = 1; i < bytes; i++) {
        positions->at[positions->count++] = (uint8_t)text[i];
    }
    return 0;
}

/* Place the state and the sources' parts in the memory; -1 with an exception set when they do not
 * fit. */
static int place_sources(merger_object *self, PyObject *sizes, const em_positions *positions) {
    const Py_ssize_t count = PyList_Size(sizes);
    uint8_t *memory = self->memory.buf;
    const size_t skew = (64 - (uintptr_t)memory % 64) % 64;
    self->starts = PyMem_Calloc((size_t)count + 1, sizeof *self->starts);
    if (self->starts == NULL || count >= INT32_MAX) {
        PyErr_NoMemory();
        return -1;
    }
    size_t at = skew + em_merger_bytes((uint32_t)count);
    for (Py_ssize_t i = 0; i < count; i++) {
        const size_t bytes = PyLong_AsSize_t(PyList_GetItem(sizes, i));
        if (PyErr_Occurred()) {
            return -1;
        }
        self->starts[i] = at;
        at = bytes > SIZE_MAX / 2 - at ? SIZE_MAX / 2 : at + bytes;
    }
    self->starts[count] = at;
    if (at > (size_t)self->memory.len) {
        PyErr_Format(PyExc_ValueError, "%zd sources need %zu bytes of memory, not %zd", count, at,
                     self->memory.len);
        return -1;
    }
    em_merger_open(&self->merger, memory + skew, (uint32_t)count, positions);
    return 0;
}

static PyObject *merger_new(PyTypeObject *type, PyObject *arguments, PyObject *names) {
    (void)names;
    PyObject *memory, *sizes_argument;
    const char *text = NULL;
    Py_ssize_t text_bytes = 0;
    em_positions positions;
    if (!PyArg_ParseTuple(arguments, "OO|z#:Merger", &memory, &sizes_argument, &text,
                          &text_bytes) ||
        parse_positions(text, text_bytes, &positions) < 0) {
        return NULL;
    }
    const allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    merger_object *self = (merger_object *)allocate(type, 0);
    PyObject *sizes = self == NULL ? NULL : PySequence_List(sizes_argument);
    if (sizes == NULL || PyObject_GetBuffer(memory, &self->memory, PyBUF_WRITABLE) < 0 ||
        place_sources(self, sizes, &positions) < 0) {
        Py_XDECREF(sizes);
        Py_XDECREF((PyObject *)self);
        return NULL;
    }
    Py_DECREF(sizes);
    return (PyObject *)self;
}

static int check_idle(const merger_object *self) {
    if (self->busy) {
        PyErr_SetString(PyExc_RuntimeError, "another thread uses this merger");
        return -1;
    }
    return 0;
}

static int check_source(const merger_object *self, Py_ssize_t source) {
    if (source >= 0 && source < (Py_ssize_t)self->merger.count) {
        return check_idle(self);
    }
    PyErr_Format(PyExc_ValueError, "no source %zd of %u", source, self->merger.count);
    return -1;
}

static PyObject *merger_span(PyObject *object, PyObject *number) {
    merger_object *self = (merger_object *)object;
    const Py_ssize_t source = PyLong_AsSsize_t(number);
    if (PyErr_Occurred() || check_source(self, source) < 0) {
        return NULL;
    }
    return Py_BuildValue("(nn)", (Py_ssize_t)self->starts[source],
                         (Py_ssize_t)self->starts[source + 1]);
}

static PyObject *merger_refill(PyObject *object, PyObject *arguments) {
    merger_object *self = (merger_object *)object;
    Py_ssize_t source, bytes;
    if (!PyArg_ParseTuple(arguments, "nn:refill", &source, &bytes) ||
        check_source(self, source) < 0) {
        return NULL;
    }
    const size_t start = self->starts[source];
    if (bytes < 0 || (size_t)bytes > self->starts[source + 1] - start ||
        self->merger.sources[source].state != EM_SOURCE_EMPTY) {
        return PyErr_Format(PyExc_ValueError,
                            "source %zd is not empty, or has no room for %zd bytes", source, bytes);
    }
    const uint8_t *memory = self->memory.buf;
    if (!em_merger_refill(&self->merger, (uint32_t)source, memory + start, (size_t)bytes)) {
        PyErr_SetString(PyExc_ValueError, "the block does not consist of whole rows");
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *stopped(int64_t why) {
    if (why == EM_MERGE_CORRUPT) {
        PyErr_SetString(PyExc_ValueError, "the block does not consist of whole rows");
        return NULL;
    }
    return PyLong_FromLongLong(why);
}

static PyObject *merger_run(PyObject *object, PyObject *arguments, PyObject *names) {
    static char *keywords[] = {"", "ending", "rows_max", NULL};
    merger_object *self = (merger_object *)object;
    Py_buffer out;
    const char *ending = NULL;
    Py_ssize_t ending_bytes = 0, rows_max = PY_SSIZE_T_MAX;
    if (check_idle(self) < 0 ||
        !PyArg_ParseTupleAndKeywords(arguments, names, "w*|z#n:run", keywords, &out, &ending,
                                     &ending_bytes, &rows_max)) {
        return NULL;
    }
    self->busy = true;
    PyThreadState *state = PyEval_SaveThread();
    const em_merged done =
        em_merger_run(&self->merger, out.buf, (size_t)out.len, rows_max < 0 ? 0 : (size_t)rows_max,
                      (const uint8_t *)ending, (size_t)ending_bytes);
    PyEval_RestoreThread(state);
    self->busy = false;
    PyBuffer_Release(&out);
    PyObject *why = stopped(done.stopped);
    return why == NULL ? NULL
                       : Py_BuildValue("(nnN)", (Py_ssize_t)done.bytes, (Py_ssize_t)done.rows, why);
}

static PyObject *merger_head(PyObject *object, PyObject *none) {
    (void)none;
    merger_object *self = (merger_object *)object;
    if (check_idle(self) < 0) {
        return NULL;
    }
    const uint8_t *row = em_merger_head(&self->merger);
    if (row == NULL) {
        Py_RETURN_NONE;
    }
    const Py_ssize_t start = row - (const uint8_t *)self->memory.buf;
    return Py_BuildValue("(nn)", start, start + (Py_ssize_t)em_row_bytes(row));
}

static PyObject *merger_skip(PyObject *object, PyObject *none) {
    (void)none;
    merger_object *self = (merger_object *)object;
    return check_idle(self) < 0 ? NULL : stopped(em_merger_skip(&self->merger));
}

static PyMethodDef merger_methods[] = {
    {"span", merger_span, METH_O,
     "span($self, source, /)\n--\n\nReturn the source's part of the memory: (start, stop)."},
    {"refill", merger_refill, METH_VARARGS,
     "refill($self, source, bytes, /)\n--\n\nAnnounce the bytes of new rows in an empty source's "
     "part; 0 ends the source."},
    {"run", (PyCFunction)(void (*)(void))merger_run, METH_VARARGS | METH_KEYWORDS,
     "run($self, out, /, ending=None, rows_max=...)\n--\n\nWrite the next rows: (bytes, rows, the "
     "source that is empty, -1 when out is full, or -2 when all sources have ended)."},
    {"head", merger_head, METH_NOARGS,
     "head($self, /)\n--\n\nReturn the span of the next row in memory: (start, stop), or None."},
    {"skip", merger_skip, METH_NOARGS,
     "skip($self, /)\n--\n\nSkip the next row; return why it stopped, as run does."},
    {NULL, NULL, 0, NULL},
};
static PyType_Slot merger_slots[] = {
    {Py_tp_doc, "Merger(memory, sizes, positions=None, /)\n--\n\nMerges sorted rows of sources "
                "that have parts of these sizes in memory, after merger_bytes(); see merge.h."},
    {Py_tp_new, merger_new},
    {Py_tp_dealloc, merger_dealloc},
    {Py_tp_methods, merger_methods},
    {0, NULL},
};
static PyType_Spec merger_spec = {
    .name = "emsqrt._kernel.Merger",
    .basicsize = sizeof(merger_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = merger_slots,
};

static PyObject *merger_bytes(PyObject *module, PyObject *number) {
    (void)module;
    const size_t sources = PyLong_AsSize_t(number);
    if (PyErr_Occurred()) {
        return NULL;
    }
    return PyLong_FromSize_t(64 + em_merger_bytes((uint32_t)sources));
}

static PyMethodDef functions[] = {
    {"merger_bytes", merger_bytes, METH_O,
     "merger_bytes($module, sources, /)\n--\n\nReturn the bytes of memory that a Merger needs for "
     "its own state."},
    {NULL, NULL, 0, NULL},
};

int merge_register(PyObject *module) {
    PyObject *type = PyType_FromSpec(&merger_spec);
    if (type == NULL || PyModule_AddObjectRef(module, "Merger", type) < 0) {
        Py_XDECREF(type);
        return -1;
    }
    Py_DECREF(type);
    return PyModule_AddFunctions(module, functions);
}
