/* AggTable(memory, keys, parts, limit, for_long): groups in memory, and their states. */
#include "bind_aggregate.h"

#include "table.h"

typedef struct {
    PyObject ob_base;
    Py_buffer memory;
    parsed_keys keys;
    em_table table;
    bool busy;
} table_object;

static void table_dealloc(PyObject *object) {
    table_object *self = (table_object *)object;
    if (self->memory.obj != NULL) {
        PyBuffer_Release(&self->memory);
    }
    release_keys(&self->keys);
    release_parts(&self->table.layout);
    PyMem_Free(self->table.sliced);
    free_object(object);
}

static PyObject *table_new(PyTypeObject *type, PyObject *arguments, PyObject *names) {
    (void)names;
    PyObject *memory, *keys, *parts;
    Py_ssize_t limit = 0;
    int for_long = 0;
    if (!PyArg_ParseTuple(arguments, "OOO|np:AggTable", &memory, &keys, &parts, &limit,
                          &for_long)) {
        return NULL;
    }
    table_object *self = new_object(type);
    if (self == NULL || PyObject_GetBuffer(memory, &self->memory, PyBUF_WRITABLE) < 0 ||
        parse_keys(keys, &self->keys) < 0 || parse_parts(parts, &self->table.layout) < 0) {
        Py_XDECREF((PyObject *)self);
        return NULL;
    }
    self->table.keys = self->keys.spec;
    self->table.sliced =
        PyMem_Calloc(em_key_columns(&self->table.keys) + 1, sizeof *self->table.sliced);
    if (self->table.sliced == NULL) {
        Py_DECREF((PyObject *)self);
        return PyErr_NoMemory();
    }
    self->table.limit = limit > 0 ? (size_t)limit : 0;
    if (!em_table_open(&self->table, self->memory.buf, (size_t)self->memory.len, for_long != 0)) {
        PyErr_Format(PyExc_ValueError, "a table of groups needs %zu bytes, not %zd",
                     EM_TABLE_BYTES_MIN, self->memory.len);
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    return (PyObject *)self;
}

/* Return the table for reading; NULL with an exception set while another thread changes it. */
static const em_table *idle_table(PyObject *object) {
    const table_object *self = (table_object *)object;
    if (self->busy) {
        PyErr_SetString(PyExc_RuntimeError, "another thread uses this table");
        return NULL;
    }
    return &self->table;
}

static int check_filling(const table_object *self) {
    if (self->busy || self->table.sorted) {
        PyErr_SetString(PyExc_RuntimeError, self->busy ? "another thread uses this table"
                                                       : "the table is sorted: reset it first");
        return -1;
    }
    return 0;
}

/* Release the GIL during one step of the table, and mark it busy so that no other thread uses it.
 */
#define WITHOUT_INTERPRETER(self, step)                                                            \
    (self)->busy = true;                                                                           \
    Py_BEGIN_ALLOW_THREADS;                                                                        \
    step;                                                                                          \
    Py_END_ALLOW_THREADS;                                                                          \
    (self)->busy = false;

static PyObject *return_count(const table_object *self, size_t count) {
    if (self->table.fault == EM_TABLE_DAMAGED) {
        PyErr_SetString(PyExc_ValueError, "a state of an aggregate is damaged");
        return NULL;
    }
    return PyLong_FromSize_t(count);
}

static PyObject *table_add(PyObject *object, PyObject *arguments) {
    table_object *self = (table_object *)object;
    PyObject *batch;
    Py_ssize_t start = 0;
    int heading = 0;
    if (!PyArg_ParseTuple(arguments, "O|np:add", &batch, &start, &heading)) {
        return NULL;
    }
    const em_columns *columns = columns_view(batch);
    if (columns == NULL || check_filling(self) < 0 ||
        check_columns(columns, &self->keys, &self->table.layout) < 0) {
        return NULL;
    }
    if (start < 0 || (size_t)start > columns->row_count) {
        return PyErr_Format(PyExc_ValueError, "no row %zd of %zu", start, columns->row_count);
    }
    size_t added;
    columns_hold(batch);
    WITHOUT_INTERPRETER(self,
                        added = em_table_add(&self->table, columns, (size_t)start, heading != 0));
    columns_release(batch);
    return return_count(self, added);
}

/* Whether the table has one key, which no state reads. */
static bool has_own_key(const em_table *table) {
    bool own = table->keys.count == 1 && table->keys.parts[0].column == 0;
    for (uint32_t i = 0; i < table->layout.count; i++) {
        own &= table->layout.parts[i].column != 0;
    }
    return own;
}

static bool are_codes(const int32_t *codes, size_t rows, size_t keys) {
    bool right = true;
    for (size_t row = 0; row < rows; row++) {
        right &= (size_t)(uint32_t)codes[row] < keys;
    }
    return right;
}

/* Add the rows of `columns`, whose arrays follow that of the keys in `joined`; -1 with an exception.
 */
static Py_ssize_t add_coded(table_object *self, const em_columns *keys, const Py_buffer *codes,
                            const em_columns *joined, size_t start) {
    const size_t rows = joined->row_count;
    if (check_columns(joined, &self->keys, &self->table.layout) < 0) {
        return -1;
    }
    if (!has_own_key(&self->table) || start > rows || (size_t)codes->len < 4 * rows ||
        !are_codes(codes->buf, rows, keys->row_count)) {
        PyErr_SetString(PyExc_ValueError, "codes are of one key column, and within its values");
        return -1;
    }
    uint32_t *places = PyMem_Calloc(keys->row_count + 1, sizeof *places);
    if (places == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    const em_coded_rows coded = {.keys = keys, .codes = codes->buf, .places = places};
    size_t added;
    WITHOUT_INTERPRETER(self, added = em_table_add_coded(&self->table, &coded, joined, start));
    PyMem_Free(places);
    return (Py_ssize_t)added;
}

static PyObject *table_add_coded(PyObject *object, PyObject *arguments) {
    table_object *self = (table_object *)object;
    PyObject *keys_object, *batch;
    Py_buffer codes;
    Py_ssize_t start = 0, added = -1;
    if (!PyArg_ParseTuple(arguments, "Oy*O|n:add_coded", &keys_object, &codes, &batch, &start)) {
        return NULL;
    }
    const em_columns *keys = columns_view(keys_object);
    const em_columns *columns = keys == NULL ? NULL : columns_view(batch);
    if (columns != NULL && check_filling(self) == 0) {
        em_columns joined = *columns;
        em_column *all = PyMem_Calloc(columns->column_count + 1, sizeof *all);
        if (all == NULL) {
            PyErr_NoMemory();
        } else if (keys->column_count != 1 || start < 0) {
            PyErr_SetString(PyExc_ValueError, "keys are one column, and rows begin at 0");
        } else {
            all[0] = keys->columns[0];
            memcpy(all + 1, columns->columns, columns->column_count * sizeof *all);
            joined.columns = all;
            joined.column_count++;
            columns_hold(keys_object);
            columns_hold(batch);
            added = add_coded(self, keys, &codes, &joined, (size_t)start);
            columns_release(batch);
            columns_release(keys_object);
        }
        PyMem_Free(all);
    }
    PyBuffer_Release(&codes);
    return added < 0 ? NULL : return_count(self, (size_t)added);
}

static PyObject *table_add_rows(PyObject *object, PyObject *arguments) {
    table_object *self = (table_object *)object;
    Py_buffer rows;
    Py_ssize_t start = 0;
    if (!PyArg_ParseTuple(arguments, "y*|n:add_rows", &rows, &start)) {
        return NULL;
    }
    PyObject *result = NULL;
    if (start < 0 || start > rows.len) {
        PyErr_Format(PyExc_ValueError, "byte %zd is outside a block of %zd bytes", start, rows.len);
    } else if (check_filling(self) == 0) {
        size_t consumed;
        WITHOUT_INTERPRETER(self, consumed = em_table_add_rows(&self->table,
                                                               (const uint8_t *)rows.buf + start,
                                                               (size_t)(rows.len - start)));
        result = return_count(self, consumed);
    }
    PyBuffer_Release(&rows);
    return result;
}

static PyObject *table_sort(PyObject *object, PyObject *none) {
    (void)none;
    table_object *self = (table_object *)object;
    if (check_filling(self) < 0) {
        return NULL;
    }
    WITHOUT_INTERPRETER(self, em_table_sort(&self->table));
    Py_RETURN_NONE;
}

static PyObject *table_drain(PyObject *object, PyObject *arguments) {
    table_object *self = (table_object *)object;
    PyObject *out_object;
    Py_ssize_t first;
    Py_buffer out;
    if (!PyArg_ParseTuple(arguments, "On:drain", &out_object, &first) ||
        PyObject_GetBuffer(out_object, &out, PyBUF_WRITABLE) < 0) {
        return NULL;
    }
    PyObject *result = NULL;
    if (!self->table.sorted || self->busy) {
        PyErr_SetString(PyExc_RuntimeError, "sort the table first");
    } else if (first < 0 || (size_t)first > self->table.groups) {
        PyErr_Format(PyExc_ValueError, "no group %zd of %zu", first, self->table.groups);
    } else {
        size_t rows, written;
        WITHOUT_INTERPRETER(self, rows = em_table_drain(&self->table, (size_t)first, out.buf,
                                                        (size_t)out.len, &written));
        result = Py_BuildValue("nn", (Py_ssize_t)written, (Py_ssize_t)rows);
    }
    PyBuffer_Release(&out);
    return result;
}

static PyObject *table_bound(PyObject *object, PyObject *arguments) {
    table_object *self = (table_object *)object;
    Py_ssize_t group;
    if (!PyArg_ParseTuple(arguments, "n:row_bound", &group)) {
        return NULL;
    }
    if (idle_table(object) == NULL) {
        return NULL;
    }
    if (!self->table.sorted || group < 0 || (size_t)group >= self->table.groups) {
        return PyErr_Format(PyExc_ValueError, "no sorted group %zd", group);
    }
    return PyLong_FromSize_t(em_table_row_bound(&self->table, (size_t)group));
}

static PyObject *table_reset(PyObject *object, PyObject *none) {
    (void)none;
    table_object *self = (table_object *)object;
    if (self->busy) {
        PyErr_SetString(PyExc_RuntimeError, "another thread uses this table");
        return NULL;
    }
    em_table_reset(&self->table);
    Py_RETURN_NONE;
}

static PyObject *get_groups(PyObject *object, void *none) {
    (void)none;
    const em_table *table = idle_table(object);
    return table == NULL ? NULL : PyLong_FromSize_t(table->groups);
}

static PyObject *get_rows(PyObject *object, void *none) {
    (void)none;
    const em_table *table = idle_table(object);
    return table == NULL ? NULL : PyLong_FromUnsignedLongLong(table->rows);
}

static int set_rows(PyObject *object, PyObject *value, void *none) {
    (void)none;
    if (value == NULL) {
        PyErr_SetString(PyExc_TypeError, "rows cannot be deleted");
        return -1;
    }
    const unsigned long long rows = PyLong_AsUnsignedLongLong(value);
    if (PyErr_Occurred() || idle_table(object) == NULL) {
        return -1;
    }
    ((table_object *)object)->table.rows = rows;
    return 0;
}

static PyObject *get_used_bytes(PyObject *object, void *none) {
    (void)none;
    const em_table *table = idle_table(object);
    if (table == NULL) {
        return NULL;
    }
    return PyLong_FromSize_t(table->heap.used + 8 * table->bucket_count + table->scratch_bytes);
}

static PyObject *get_refused_bytes(PyObject *object, void *none) {
    (void)none;
    const em_table *table = idle_table(object);
    return table == NULL ? NULL : PyLong_FromSize_t(table->refused);
}

static PyObject *get_text_bytes_max(PyObject *object, void *none) {
    (void)none;
    const em_table *table = idle_table(object);
    return table == NULL ? NULL : PyLong_FromSize_t(table->heap.text_bytes_max);
}

static PyObject *get_positions(PyObject *object, void *none) {
    (void)none;
    const em_table *table = idle_table(object);
    if (table == NULL) {
        return NULL;
    }
    const em_positions positions = em_key_differences_positions(&table->differences);
    uint8_t text[1 + EM_PREFIX_BYTES] = {positions.decides};
    for (uint32_t i = 0; i < positions.count; i++) {
        text[1 + i] = (uint8_t)positions.at[i];
    }
    return PyBytes_FromStringAndSize((const char *)text, 1 + (Py_ssize_t)positions.count);
}

static PyMethodDef table_methods[] = {
    {"add", table_add, METH_VARARGS, NULL},
    {"add_coded", table_add_coded, METH_VARARGS, NULL},
    {"add_rows", table_add_rows, METH_VARARGS, NULL},
    {"drain", table_drain, METH_VARARGS, NULL},
    {"reset", table_reset, METH_NOARGS, NULL},
    {"row_bound", table_bound, METH_VARARGS, NULL},
    {"sort", table_sort, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};
static PyGetSetDef table_properties[] = {
    {"groups", get_groups, NULL, NULL, NULL},
    {"positions", get_positions, NULL, NULL, NULL},
    {"refused_bytes", get_refused_bytes, NULL, NULL, NULL},
    {"rows", get_rows, set_rows, NULL, NULL},
    {"text_bytes_max", get_text_bytes_max, NULL, NULL, NULL},
    {"used_bytes", get_used_bytes, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
static PyType_Slot table_slots[] = {
    {Py_tp_doc, "AggTable(memory, keys, parts, limit=0, for_long=False)\n--\n\nGroups by key, in "
                "memory; see table.h."},
    {Py_tp_new, table_new},
    {Py_tp_dealloc, table_dealloc},
    {Py_tp_methods, table_methods},
    {Py_tp_getset, table_properties},
    {0, NULL},
};
static PyType_Spec table_spec = {
    .name = "emsqrt._kernel.AggTable",
    .basicsize = sizeof(table_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = table_slots,
};

int table_register(PyObject *module) {
    PyObject *type = PyType_FromSpec(&table_spec);
    const int added = type == NULL ? -1 : PyModule_AddObjectRef(module, "AggTable", type);
    Py_XDECREF(type);
    return added;
}
