/* Read the parts and keys of aggregates from Python tuples. */
#include "bind_aggregate.h"

static PyObject *list_of(PyObject *source, size_t most, const char *what) {
    PyObject *list = PySequence_List(source);
    if (list != NULL && (size_t)PyList_Size(list) > most) {
        PyErr_Format(PyExc_ValueError, "%s: at most %zu", what, most);
        Py_CLEAR(list);
    }
    return list;
}

int parse_keys(PyObject *source, parsed_keys *keys) {
    PyObject *list = list_of(source, EM_PARTS_MAX, "key columns");
    if (list == NULL) {
        return -1;
    }
    const size_t count = (size_t)PyList_Size(list);
    keys->parts = PyMem_Calloc(count + 1, sizeof *keys->parts);
    keys->kinds = PyMem_Calloc(count + 1, sizeof *keys->kinds);
    bool failed = keys->parts == NULL || keys->kinds == NULL;
    if (failed) {
        PyErr_NoMemory();
    }
    for (size_t i = 0; i < count && !failed; i++) {
        int column, kind, descending, nulls_first;
        failed = !PyArg_ParseTuple(PyList_GetItem(list, (Py_ssize_t)i),
                                   "iipp;a key is (column, kind, descending, nulls_first)", &column,
                                   &kind, &descending, &nulls_first);
        if (!failed && (column < 0 || kind < 0 || kind >= EM_KINDS)) {
            PyErr_Format(PyExc_ValueError, "no key has column %d and kind %d", column, kind);
            failed = true;
        }
        if (!failed) {
            keys->parts[i] = (em_key_part){(uint32_t)column, descending != 0, nulls_first != 0};
            keys->kinds[i] = (enum em_kind)kind;
        }
    }
    Py_DECREF(list);
    keys->spec = (em_key_spec){count, keys->parts};
    return failed ? -1 : 0;
}

int parse_parts(PyObject *source, em_layout *layout) {
    PyObject *list = list_of(source, EM_PARTS_MAX, "parts of aggregates");
    if (list == NULL) {
        return -1;
    }
    layout->count = (uint32_t)PyList_Size(list);
    layout->parts = PyMem_Calloc((size_t)layout->count + 1, sizeof *layout->parts);
    bool failed = layout->parts == NULL;
    if (failed) {
        PyErr_NoMemory();
    }
    for (uint32_t i = 0; i < layout->count && !failed; i++) {
        int op, column, kind, param;
        failed =
            !PyArg_ParseTuple(PyList_GetItem(list, i), "iiii;a part is (op, column, kind, param)",
                              &op, &column, &kind, &param);
        if (!failed &&
            (op < 0 || op >= EM_PART_OPS || column < -1 || kind < 0 || kind >= EM_KINDS)) {
            PyErr_Format(PyExc_ValueError, "no part has op %d, column %d and kind %d", op, column,
                         kind);
            failed = true;
        }
        if (!failed) {
            layout->parts[i] = (em_part){
                .op = (enum em_part_op)op,
                .column = column < 0 ? EM_NO_COLUMN : (uint32_t)column,
                .kind = (enum em_kind)kind,
                .param = param,
            };
        }
    }
    Py_DECREF(list);
    if (!failed && !em_layout_place(layout)) {
        PyErr_SetString(PyExc_ValueError, "a part does not support its kind or param");
        failed = true;
    }
    return failed ? -1 : 0;
}

void release_keys(parsed_keys *keys) {
    PyMem_Free(keys->parts);
    PyMem_Free(keys->kinds);
}

void release_parts(em_layout *layout) {
    PyMem_Free(layout->parts);
}

int check_columns(const em_columns *columns, const parsed_keys *keys, const em_layout *layout) {
    bool right = true;
    for (size_t i = 0; i < keys->spec.count; i++) {
        const uint32_t column = keys->parts[i].column;
        right &= column < columns->column_count && columns->columns[column].kind == keys->kinds[i];
    }
    for (uint32_t i = 0; i < layout->count; i++) {
        const em_part *part = &layout->parts[i];
        right &= part->column == EM_NO_COLUMN || part->op == EM_COUNT_ROWS ||
                 (part->column < columns->column_count &&
                  (part->op == EM_COUNT || columns->columns[part->column].kind == part->kind));
    }
    if (!right || columns->row_count > INT32_MAX) {
        PyErr_SetString(PyExc_ValueError,
                        "the columns do not have the kinds that the keys and parts read");
        return -1;
    }
    return 0;
}

int raise_combine_fault(enum em_combine_fault fault) {
    if (fault == EM_COMBINE_OK) {
        return 0;
    }
    if (fault == EM_COMBINE_NO_ROOM) {
        PyErr_SetString(PyExc_MemoryError, "a group's states do not fit the memory");
    } else {
        PyErr_SetString(PyExc_ValueError, "rows of states are damaged");
    }
    return -1;
}

PyObject *run_over(PyObject *arguments, run_rows run, void *state,
                   const enum em_combine_fault *fault) {
    Py_buffer rows, out;
    PyObject *out_object;
    Py_ssize_t start;
    int last;
    if (!PyArg_ParseTuple(arguments, "y*nOp:run", &rows, &start, &out_object, &last)) {
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
        em_progress done;
        Py_BEGIN_ALLOW_THREADS;
        done = run(state, (const uint8_t *)rows.buf + start, (size_t)(rows.len - start), last != 0,
                   out.buf, (size_t)out.len);
        Py_END_ALLOW_THREADS;
        if (raise_combine_fault(*fault) == 0) {
            result = Py_BuildValue("nnn", (Py_ssize_t)done.consumed, (Py_ssize_t)done.written,
                                   (Py_ssize_t)done.rows);
        }
    }
    PyBuffer_Release(&out);
    PyBuffer_Release(&rows);
    return result;
}
