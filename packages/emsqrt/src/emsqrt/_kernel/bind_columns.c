/* Columns(row_count, [(kind, offset, validity, values, ends), …]): Arrow buffers as a view for C.
 */
#include "native.h"

#include "pack.h"

#include <stdlib.h>
#include <string.h>

static PyObject *columns_type;

static void columns_dealloc(PyObject *self) {
    columns_object *columns = (columns_object *)self;
    PyTypeObject *type = Py_TYPE(self);
    for (Py_ssize_t i = 0; i < columns->held_count; i++) {
        PyBuffer_Release(&columns->held[i]);
    }
    PyMem_Free(columns->held);
    PyMem_Free(columns->columns);
    Py_XDECREF(columns->owner);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static size_t bits_bytes(size_t rows) {
    return (rows + 7) / 8;
}

/* Hold one buffer, or nothing for None, and return its address; NULL with an exception set when it
 * is too short. */
static const uint8_t *hold(columns_object *columns, PyObject *object, size_t bytes_min,
                           const char *what, bool *failed) {
    if (object == Py_None) {
        return NULL;
    }
    Py_buffer *buffer = &columns->held[columns->held_count];
    if (PyObject_GetBuffer(object, buffer, PyBUF_SIMPLE) < 0) {
        *failed = true;
        return NULL;
    }
    columns->held_count++;
    if ((size_t)buffer->len < bytes_min) {
        PyErr_Format(PyExc_ValueError, "%s has %zd bytes, its rows need %zu", what, buffer->len,
                     bytes_min);
        *failed = true;
        return NULL;
    }
    return buffer->buf;
}

/* Check that the ends ascend within the values: C code reads texts without checking again. */
static int check_ends(const int32_t *ends, size_t rows, size_t values_bytes) {
    bool rising = ends[0] >= 0;
    for (size_t row = 0; row < rows; row++) {
        rising &= ends[row] <= ends[row + 1];
    }
    if (!rising || (size_t)ends[rows] > values_bytes) {
        PyErr_SetString(PyExc_ValueError, "offsets of text do not ascend within its bytes");
        return -1;
    }
    return 0;
}

/* Whether all decimals fit 64 bits. */
static bool are_short(const em_column *column, size_t rows) {
    const uint8_t *values = column->values + column->offset * em_width(EM_DECIMAL);
    uint64_t beyond = 0;
    for (size_t row = 0; row < rows; row++) {
        int64_t words[2];
        memcpy(words, values + row * sizeof words, sizeof words);
        const bool counts = column->validity == NULL || em_is_valid(column, row);
        beyond |= counts ? (uint64_t)(words[1] ^ words[0] >> 63) : 0;
    }
    return beyond == 0;
}

/* Whether all numbers fit the bytes in which they will be packed. */
static bool are_narrow(const em_column *column, size_t rows) {
    enum { ROWS = 256 };
    uint64_t words[ROWS], all = 0;
    for (size_t start = 0; column->narrow.bytes < 8 && start < rows; start += ROWS) {
        const size_t count = rows - start < ROWS ? rows - start : ROWS;
        em_narrow_words(column, start, count, words);
        for (size_t r = 0; r < count; r++) {
            const bool counts = column->validity == NULL || em_is_valid(column, start + r);
            all |= counts ? words[r] : 0;
        }
    }
    return column->narrow.bytes == 8 || all >> (8 * column->narrow.bytes) == 0;
}

static int check_narrow(const em_column *column, size_t rows) {
    if (column->kind == EM_DECIMAL && !are_short(column, rows)) {
        PyErr_SetString(PyExc_OverflowError, "a decimal has more digits than its type");
        return -1;
    }
    if (!are_narrow(column, rows)) {
        PyErr_SetString(PyExc_OverflowError,
                        "a value is outside the range in the file's statistics");
        return -1;
    }
    return 0;
}

int parse_kind(PyObject *source, enum em_kind *kind, em_narrow *narrow) {
    int number, bytes = 0;
    long long least = 0;
    if (PyTuple_Check(source)) {
        if (!PyArg_ParseTuple(source, "iiL;a narrow kind is (kind, bytes, least)", &number, &bytes,
                              &least)) {
            return -1;
        }
    } else {
        number = (int)PyLong_AsLong(source);
        if (number == -1 && PyErr_Occurred()) {
            return -1;
        }
    }
    const bool known = number >= 0 && number < EM_KINDS;
    const bool whole = known && ((number >= EM_I8 && number <= EM_I64) || number == EM_DECIMAL);
    const bool narrows = bytes == 1 || bytes == 2 || bytes == 4 || (bytes == 8 && least == 0);
    if (!known || (PyTuple_Check(source) && !(whole && narrows))) {
        PyErr_Format(PyExc_ValueError, "%R is not a kind of column", source);
        return -1;
    }
    *kind = (enum em_kind)number;
    *narrow = (em_narrow){(uint8_t)bytes, (int64_t)least};
    return 0;
}

static int hold_column(columns_object *columns, PyObject *parts, em_column *column) {
    Py_ssize_t offset;
    PyObject *source, *validity, *values, *ends;
    if (!PyArg_ParseTuple(parts, "OnOOO;a column is (kind, offset, validity, values, ends)",
                          &source, &offset, &validity, &values, &ends) ||
        parse_kind(source, &column->kind, &column->narrow) < 0) {
        return -1;
    }
    const enum em_kind kind = column->kind;
    if (offset < 0 || offset > (Py_ssize_t)UINT32_MAX) {
        PyErr_Format(PyExc_ValueError, "no column has offset %zd", offset);
        return -1;
    }
    const size_t rows = columns->view.row_count, end = (size_t)offset + rows;
    const bool text = kind == EM_TEXT || kind == EM_BYTES;
    const size_t values_bytes = kind == EM_BOOL ? bits_bytes(end) : em_width(kind) * end;
    bool failed = false;
    column->offset = (size_t)offset;
    column->validity = hold(columns, validity, bits_bytes(end), "validity", &failed);
    column->values = failed ? NULL : hold(columns, values, values_bytes, "values", &failed);
    const size_t held =
        failed || values == Py_None ? 0 : (size_t)columns->held[columns->held_count - 1].len;
    const void *found = failed || !text || (rows == 0 && ends == Py_None)
                            ? NULL
                            : hold(columns, ends, (end + 1) * sizeof(int32_t), "offsets", &failed);
    column->ends = found;
    if (failed) {
        return -1;
    }
    if (rows > 0 && (column->values == NULL && values_bytes > 0)) {
        PyErr_SetString(PyExc_ValueError, "a column with rows needs values");
        return -1;
    }
    if (rows > 0 && text && column->ends == NULL) {
        PyErr_SetString(PyExc_ValueError, "a column of text needs offsets");
        return -1;
    }
    if (column->narrow.bytes != 0) {
        return check_narrow(column, rows);
    }
    return column->ends == NULL ? 0 : check_ends(column->ends + offset, rows, held);
}

static PyObject *columns_new(PyTypeObject *type, PyObject *arguments, PyObject *names) {
    (void)names;
    Py_ssize_t row_count;
    PyObject *source;
    if (!PyArg_ParseTuple(arguments, "nO:Columns", &row_count, &source)) {
        return NULL;
    }
    if (row_count < 0 || row_count > (Py_ssize_t)INT32_MAX) {
        return PyErr_Format(PyExc_ValueError, "a batch has 0 to 2147483647 rows, not %zd",
                            row_count);
    }
    PyObject *list = PySequence_List(source);
    if (list == NULL) {
        return NULL;
    }
    const Py_ssize_t count = PyList_Size(list);
    const allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    columns_object *columns = (columns_object *)allocate(type, 0);
    if (columns == NULL) {
        Py_DECREF(list);
        return NULL;
    }
    columns->columns = PyMem_Calloc((size_t)count + 1, sizeof(em_column));
    columns->held = PyMem_Calloc((size_t)count * 3 + 1, sizeof(Py_buffer));
    bool failed = columns->columns == NULL || columns->held == NULL;
    if (failed) {
        PyErr_NoMemory();
    }
    columns->view.row_count = (size_t)row_count;
    columns->view.column_count = (size_t)count;
    columns->view.columns = columns->columns;
    for (Py_ssize_t i = 0; i < count && !failed; i++) {
        failed = hold_column(columns, PyList_GetItem(list, i), &columns->columns[i]) < 0;
    }
    Py_DECREF(list);
    if (failed) {
        Py_DECREF(columns);
        return NULL;
    }
    return (PyObject *)columns;
}

static Py_ssize_t columns_length(PyObject *self) {
    return (Py_ssize_t)((columns_object *)self)->view.row_count;
}

static PyObject *columns_null_count(PyObject *self, PyObject *argument) {
    const em_columns *view = &((columns_object *)self)->view;
    const Py_ssize_t index = PyNumber_AsSsize_t(argument, PyExc_IndexError);
    if (index == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (index < 0 || (size_t)index >= view->column_count) {
        return PyErr_Format(PyExc_IndexError, "there is no column %zd", index);
    }
    const em_column *column = &view->columns[index];
    size_t nulls = 0;
    for (size_t row = 0; column->validity != NULL && row < view->row_count; row++) {
        nulls += !em_is_valid(column, row);
    }
    return PyLong_FromSize_t(nulls);
}

static PyObject *columns_addresses(PyObject *self, PyObject *argument) {
    const em_columns *view = &((columns_object *)self)->view;
    const Py_ssize_t index = PyNumber_AsSsize_t(argument, PyExc_IndexError);
    if (index == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (index < 0 || (size_t)index >= view->column_count) {
        return PyErr_Format(PyExc_IndexError, "there is no column %zd", index);
    }
    const em_column *column = &view->columns[index];
    return Py_BuildValue("(inKKK)", (int)column->kind, (Py_ssize_t)column->offset,
                         (unsigned long long)(uintptr_t)column->validity,
                         (unsigned long long)(uintptr_t)column->values,
                         (unsigned long long)(uintptr_t)column->ends);
}

/* Return a new Columns of `count` columns over the rows of `self`, which stays alive as long. */
static columns_object *columns_derived(PyObject *self, size_t count, Py_ssize_t held) {
    const em_columns *view = &((columns_object *)self)->view;
    em_columns whole = *view;
    whole.columns = NULL;
    whole.column_count = 0;
    columns_object *derived = (columns_object *)columns_over(&whole, self);
    if (derived == NULL) {
        return NULL;
    }
    em_column *columns = PyMem_Calloc(count + 1, sizeof(em_column));
    Py_buffer *buffers = PyMem_Calloc((size_t)held + 1, sizeof(Py_buffer));
    if (columns == NULL || buffers == NULL) {
        PyMem_Free(columns);
        PyMem_Free(buffers);
        Py_DECREF(derived);
        PyErr_NoMemory();
        return NULL;
    }
    PyMem_Free(derived->columns);
    derived->columns = columns;
    derived->held = buffers;
    derived->view.columns = columns;
    derived->view.column_count = count;
    return derived;
}

static PyObject *columns_select(PyObject *self, PyObject *argument) {
    const em_columns *view = &((columns_object *)self)->view;
    PyObject *list = PySequence_List(argument);
    if (list == NULL) {
        return NULL;
    }
    const Py_ssize_t count = PyList_Size(list);
    columns_object *derived = columns_derived(self, (size_t)count, 0);
    for (Py_ssize_t i = 0; i < count && derived != NULL; i++) {
        const Py_ssize_t index = PyNumber_AsSsize_t(PyList_GetItem(list, i), PyExc_IndexError);
        if (index < 0 || (size_t)index >= view->column_count) {
            if (!PyErr_Occurred()) {
                PyErr_Format(PyExc_IndexError, "there is no column %zd", index);
            }
            Py_CLEAR(derived);
        } else {
            derived->columns[i] = view->columns[index];
        }
    }
    Py_DECREF(list);
    return (PyObject *)derived;
}

static PyObject *columns_with(PyObject *self, PyObject *argument) {
    const em_columns *view = &((columns_object *)self)->view;
    PyObject *list = PySequence_List(argument);
    if (list == NULL) {
        return NULL;
    }
    const Py_ssize_t added = PyList_Size(list);
    columns_object *derived = columns_derived(self, view->column_count + (size_t)added, added * 3);
    if (derived != NULL && view->column_count > 0) {
        memcpy(derived->columns, view->columns, view->column_count * sizeof(em_column));
    }
    for (Py_ssize_t i = 0; i < added && derived != NULL; i++) {
        em_column *column = &derived->columns[view->column_count + (size_t)i];
        if (hold_column(derived, PyList_GetItem(list, i), column) < 0) {
            Py_CLEAR(derived);
        }
    }
    Py_DECREF(list);
    return (PyObject *)derived;
}

static PyMethodDef columns_methods[] = {
    {"with_columns", columns_with, METH_O,
     "with_columns(columns)\n--\n\nReturn the same rows with further columns, in the form that the "
     "constructor accepts."},
    {"select", columns_select, METH_O,
     "select(indices)\n--\n\nReturn the same rows with these columns, in this order."},
    {"addresses", columns_addresses, METH_O,
     "addresses(index)\n--\n\nReturn kind, offset, and the addresses of validity, values and ends; "
     "0 for none."},
    {"null_count", columns_null_count, METH_O,
     "null_count(index)\n--\n\nReturn how many values of a column are NULL."},
    {NULL, NULL, 0, NULL},
};

void columns_hold(PyObject *object) {
    Py_INCREF(object);
    ((columns_object *)object)->readers++;
}

void columns_release(PyObject *object) {
    ((columns_object *)object)->readers--;
    Py_DECREF(object);
}

const em_columns *columns_view(PyObject *object) {
    if (!PyObject_TypeCheck(object, (PyTypeObject *)columns_type)) {
        PyErr_SetString(PyExc_TypeError, "expected Columns");
        return NULL;
    }
    return &((columns_object *)object)->view;
}

PyObject *columns_over(const em_columns *view, PyObject *owner) {
    PyTypeObject *type = (PyTypeObject *)columns_type;
    const allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    columns_object *columns = (columns_object *)allocate(type, 0);
    if (columns == NULL) {
        return NULL;
    }
    columns->columns = PyMem_Calloc(view->column_count + 1, sizeof(em_column));
    if (columns->columns == NULL) {
        Py_DECREF(columns);
        return PyErr_NoMemory();
    }
    if (view->column_count > 0) {
        memcpy(columns->columns, view->columns, view->column_count * sizeof(em_column));
    }
    columns->view = *view;
    columns->view.columns = columns->columns;
    Py_INCREF(owner);
    columns->owner = owner;
    return (PyObject *)columns;
}

static PyType_Slot columns_slots[] = {
    {Py_tp_doc, "Columns(row_count, columns)\n--\n\nA batch as a view for C; see columns.h."},
    {Py_tp_new, columns_new},
    {Py_tp_dealloc, columns_dealloc},
    {Py_sq_length, columns_length},
    {Py_tp_methods, columns_methods},
    {0, NULL},
};
static PyType_Spec columns_spec = {
    .name = "emsqrt._kernel.Columns",
    .basicsize = sizeof(columns_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = columns_slots,
};

int columns_register(PyObject *module) {
    columns_type = PyType_FromSpec(&columns_spec);
    return columns_type == NULL ? -1 : PyModule_AddObjectRef(module, "Columns", columns_type);
}
