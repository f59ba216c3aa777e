/* JoinTable: the build side's rows, looked up by key. */
#include "bind_join.h"

typedef struct {
    PyObject ob_base;
    Py_buffer memory;
    em_join_table table;
    bool busy;
} table_object;

static void table_dealloc(PyObject *object) {
    release_object(object, &((table_object *)object)->memory);
}

static PyObject *table_new(PyTypeObject *type, PyObject *arguments, PyObject *names) {
    (void)names;
    PyObject *memory;
    if (!PyArg_ParseTuple(arguments, "O:JoinTable", &memory)) {
        return NULL;
    }
    const allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    table_object *self = (table_object *)allocate(type, 0);
    if (self == NULL || PyObject_GetBuffer(memory, &self->memory, PyBUF_WRITABLE) < 0) {
        Py_XDECREF((PyObject *)self);
        return NULL;
    }
    self->table.memory = self->memory.buf;
    self->table.size = (size_t)self->memory.len;
    return (PyObject *)self;
}

/* Mark the table busy and release the GIL for a loop; NULL with an exception set. */
static PyThreadState *begin(table_object *self, bool indexed) {
    if (self->busy || self->table.indexed != indexed) {
        PyErr_SetString(PyExc_RuntimeError, self->busy ? "another thread uses this table"
                                            : indexed
                                                ? "the table has no index yet"
                                                : "the table has an index already: clear it first");
        return NULL;
    }
    self->busy = true;
    return PyEval_SaveThread();
}

static void finish(table_object *self, PyThreadState *state) {
    PyEval_RestoreThread(state);
    self->busy = false;
}

static PyObject *table_add(PyObject *object, PyObject *arguments, PyObject *names) {
    static char *keywords[] = {"", "", "keys_only", NULL};
    table_object *self = (table_object *)object;
    Py_buffer block;
    Py_ssize_t start = 0;
    int keys_only = 0;
    if (!PyArg_ParseTupleAndKeywords(arguments, names, "y*|n$p:add_rows", keywords, &block, &start,
                                     &keys_only)) {
        return NULL;
    }
    size_t at = (size_t)start;
    enum em_walk walk = EM_WALK_DAMAGED;
    PyThreadState *state = is_within(start, &block) ? begin(self, false) : (no_rows(), NULL);
    if (state != NULL) {
        walk = em_join_add(&self->table, block.buf, (size_t)block.len, &at, keys_only != 0);
        finish(self, state);
        if (walk == EM_WALK_DAMAGED) {
            no_rows();
        }
    }
    PyBuffer_Release(&block);
    return walk == EM_WALK_DAMAGED ? NULL : PyLong_FromSize_t(at);
}

static PyObject *table_index(PyObject *object, PyObject *none) {
    (void)none;
    table_object *self = (table_object *)object;
    PyThreadState *state = begin(self, false);
    if (state == NULL) {
        return NULL;
    }
    em_join_index(&self->table);
    finish(self, state);
    Py_RETURN_NONE;
}

static PyObject *table_distinct(PyObject *object, PyObject *none) {
    (void)none;
    table_object *self = (table_object *)object;
    PyThreadState *state = begin(self, false);
    if (state == NULL) {
        return NULL;
    }
    em_join_distinct(&self->table);
    finish(self, state);
    Py_RETURN_NONE;
}

static PyObject *table_probe(PyObject *object, PyObject *arguments) {
    table_object *self = (table_object *)object;
    Py_buffer block, out, bits = {.obj = NULL};
    Py_ssize_t at, first_bit = 0;
    unsigned flags;
    PyObject *bits_argument = Py_None;
    if (!PyArg_ParseTuple(arguments, "y*nw*I|On:probe", &block, &at, &out, &flags, &bits_argument,
                          &first_bit)) {
        return NULL;
    }
    em_join_probe probe = {block.buf, (size_t)block.len, (size_t)at, 0, flags,
                           NULL,      (size_t)first_bit};
    em_join_output joined = {out.buf, (size_t)out.len, 0, 0};
    bool failed =
        bits_argument != Py_None && PyObject_GetBuffer(bits_argument, &bits, PyBUF_WRITABLE) < 0;
    probe.bits = bits.obj == NULL ? NULL : bits.buf;
    if (!failed && (!is_within(at, &block) || first_bit < 0)) {
        no_rows();
        failed = true;
    }
    failed = failed || check_bits(&block, at, &bits, first_bit) < 0;
    PyThreadState *state = failed ? NULL : begin(self, true);
    failed = state == NULL;
    if (!failed) {
        const enum em_walk walk = em_join_probe_rows(&self->table, &probe, &joined);
        finish(self, state);
        failed = walk == EM_WALK_DAMAGED && no_rows() == NULL;
    }
    PyBuffer_Release(&block);
    PyBuffer_Release(&out);
    if (bits.obj != NULL) {
        PyBuffer_Release(&bits);
    }
    return failed ? NULL
                  : Py_BuildValue("(nnnn)", (Py_ssize_t)probe.at, (Py_ssize_t)joined.used,
                                  (Py_ssize_t)joined.rows, (Py_ssize_t)probe.passed);
}

static PyObject *table_drain(PyObject *object, PyObject *arguments) {
    table_object *self = (table_object *)object;
    Py_buffer out;
    unsigned flags;
    int matched;
    if (!PyArg_ParseTuple(arguments, "w*pI:drain", &out, &matched, &flags)) {
        return NULL;
    }
    em_join_output joined = {out.buf, (size_t)out.len, 0, 0};
    enum em_walk walk = EM_WALK_ON;
    PyThreadState *state = begin(self, true);
    if (state != NULL) {
        walk = em_join_drain(&self->table, matched != 0, flags, &joined);
        finish(self, state);
    }
    PyBuffer_Release(&out);
    return state == NULL ? NULL
                         : Py_BuildValue("(nnO)", (Py_ssize_t)joined.used, (Py_ssize_t)joined.rows,
                                         walk == EM_WALK_ON ? Py_True : Py_False);
}

static PyObject *table_clear(PyObject *object, PyObject *none) {
    (void)none;
    table_object *self = (table_object *)object;
    if (self->busy) {
        PyErr_SetString(PyExc_RuntimeError, "another thread uses this table");
        return NULL;
    }
    self->table = (em_join_table){.memory = self->table.memory, .size = self->table.size};
    Py_RETURN_NONE;
}

static PyObject *get_rows(PyObject *object, void *none) {
    (void)none;
    return PyLong_FromSize_t(((table_object *)object)->table.row_count);
}

static PyObject *get_rows_bytes(PyObject *object, void *none) {
    (void)none;
    return PyLong_FromSize_t(((table_object *)object)->table.rows_bytes);
}

static PyMethodDef table_methods[] = {
    {"add_rows", (PyCFunction)(void (*)(void))table_add, METH_VARARGS | METH_KEYWORDS,
     "add_rows($self, block, at=0, /, *, keys_only=False)\n--\n\nStore rows while they fit; return "
     "the offset of the first that does not."},
    {"index", table_index, METH_NOARGS, "index($self, /)\n--\n\nBuild the index over the rows."},
    {"distinct", table_distinct, METH_NOARGS,
     "distinct($self, /)\n--\n\nKeep only the first row of each key."},
    {"probe", table_probe, METH_VARARGS,
     "probe($self, block, at, out, flags, bits=None, first_bit=0, /)\n--\n\nJoin a block's rows "
     "from `at` on: (next at, bytes, rows, rows read)."},
    {"drain", table_drain, METH_VARARGS,
     "drain($self, out, matched, flags, /)\n--\n\nWrite the stored rows that matched, or those "
     "that did not: (bytes, rows, done)."},
    {"clear", table_clear, METH_NOARGS, "clear($self, /)\n--\n\nDrop all rows."},
    {NULL, NULL, 0, NULL},
};
static PyGetSetDef table_fields[] = {
    {"rows", get_rows, NULL, "Rows stored.", NULL},
    {"rows_bytes", get_rows_bytes, NULL, "Bytes of the rows, which are at the memory's start.",
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
static PyType_Slot table_slots[] = {
    {Py_tp_doc, "JoinTable(memory)\n--\n\nThe build side's rows, looked up by key; see join.h."},
    {Py_tp_new, table_new},
    {Py_tp_dealloc, table_dealloc},
    {Py_tp_methods, table_methods},
    {Py_tp_getset, table_fields},
    {0, NULL},
};
static PyType_Spec table_spec = {
    .name = "emsqrt._kernel.JoinTable",
    .basicsize = sizeof(table_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = table_slots,
};

int join_register(PyObject *module) {
    PyObject *type = PyType_FromSpec(&table_spec);
    const int done = type == NULL ? -1 : PyModule_AddObjectRef(module, "JoinTable", type);
    Py_XDECREF(type);
    return done;
}
