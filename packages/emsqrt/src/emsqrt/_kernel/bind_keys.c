/* KeySpec, decode_keys, unpack_rows: the keys and payloads of rows from columns, and back. */
#include "bind_rows.h"
#include "row_columns.h"

static PyObject *key_spec_type;

typedef struct {
    PyObject ob_base;
    em_key_spec view;
    em_key_part *parts;
} key_spec_object;

static void key_spec_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyMem_Free(((key_spec_object *)self)->parts);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static int parse_key_part(PyObject *source, em_key_part *part) {
    Py_ssize_t column;
    int descending, nulls_first;
    if (!PyArg_ParseTuple(source, "npp;a key is (column, descending, nulls_first)", &column,
                          &descending, &nulls_first)) {
        return -1;
    }
    if (column < 0 || column > INT32_MAX) {
        PyErr_Format(PyExc_ValueError, "no column has the index %zd", column);
        return -1;
    }
    *part = (em_key_part){(uint32_t)column, descending != 0, nulls_first != 0};
    return 0;
}

/* Make key parts from a sequence of 3-tuples, to be freed by the caller; NULL with an exception
 * set. */
static em_key_part *parse_key_parts(PyObject *source, size_t *count) {
    PyObject *list = PySequence_List(source);
    if (list == NULL) {
        return NULL;
    }
    *count = (size_t)PyList_Size(list);
    em_key_part *parts = PyMem_Calloc(*count + 1, sizeof *parts);
    if (parts == NULL) {
        PyErr_NoMemory();
    }
    for (size_t i = 0; i < *count && parts != NULL; i++) {
        if (parse_key_part(PyList_GetItem(list, (Py_ssize_t)i), &parts[i]) < 0) {
            PyMem_Free(parts);
            parts = NULL;
        }
    }
    Py_DECREF(list);
    return parts;
}

static PyObject *key_spec_new(PyTypeObject *type, PyObject *arguments, PyObject *names) {
    (void)names;
    PyObject *source;
    if (!PyArg_ParseTuple(arguments, "O:KeySpec", &source)) {
        return NULL;
    }
    size_t count;
    em_key_part *parts = parse_key_parts(source, &count);
    if (parts == NULL) {
        return NULL;
    }
    const allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    key_spec_object *spec = (key_spec_object *)allocate(type, 0);
    if (spec == NULL) {
        PyMem_Free(parts);
        return NULL;
    }
    spec->parts = parts;
    spec->view = (em_key_spec){count, parts};
    return (PyObject *)spec;
}

static Py_ssize_t key_spec_length(PyObject *self) {
    return (Py_ssize_t)((key_spec_object *)self)->view.count;
}

const em_key_spec *key_spec_view(PyObject *object, const em_columns *columns) {
    if (!PyObject_TypeCheck(object, (PyTypeObject *)key_spec_type)) {
        PyErr_SetString(PyExc_TypeError, "expected a KeySpec");
        return NULL;
    }
    const em_key_spec *spec = &((key_spec_object *)object)->view;
    for (size_t i = 0; i < spec->count; i++) {
        if (spec->parts[i].column >= columns->column_count) {
            PyErr_Format(PyExc_ValueError, "the key reads column %u, but there are only %zu",
                         spec->parts[i].column, columns->column_count);
            return NULL;
        }
    }
    return spec;
}

static PyObject *key_spec_encode(PyObject *self, PyObject *arguments) {
    PyObject *source;
    Py_ssize_t row;
    if (!PyArg_ParseTuple(arguments, "On:encode", &source, &row)) {
        return NULL;
    }
    const em_columns *columns = columns_view(source);
    const em_key_spec *spec = columns == NULL ? NULL : key_spec_view(self, columns);
    if (spec == NULL || check_row(columns, row) < 0) {
        return NULL;
    }
    PyObject *key =
        PyBytes_FromStringAndSize(NULL, (Py_ssize_t)em_key_bytes(spec, columns, (size_t)row));
    if (key != NULL) {
        em_key_encode(spec, columns, (size_t)row, (uint8_t *)PyBytes_AsString(key));
    }
    return key;
}

static PyMethodDef key_spec_methods[] = {
    {"encode", key_spec_encode, METH_VARARGS,
     "encode($self, columns, row, /)\n--\n\nReturn one row's key as bytes."},
    {NULL, NULL, 0, NULL},
};
static PyType_Slot key_spec_slots[] = {
    {Py_tp_doc, "KeySpec(columns)\n--\n\nThe sort order of rows: (column, descending, nulls_first) "
                "of each key column; see keys.h."},
    {Py_tp_new, key_spec_new},
    {Py_tp_dealloc, key_spec_dealloc},
    {Py_tp_methods, key_spec_methods},
    {Py_sq_length, key_spec_length},
    {0, NULL},
};
static PyType_Spec key_spec_spec = {
    .name = "emsqrt._kernel.KeySpec",
    .basicsize = sizeof(key_spec_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = key_spec_slots,
};

/* Rows being decoded: their keys when there are `parts`, otherwise their payloads. */
typedef struct {
    em_array *arrays;
    size_t count;
    em_packed_form form; /* of payloads */
    const em_key_part *parts;
    const uint8_t *block;
    size_t bytes;
} reading;

/* Add the length of one row's texts to the arrays'; false when the row is malformed. */
static bool measure_row(const reading *of, em_array *arrays, const uint8_t *row) {
    if (of->parts == NULL) {
        return em_packed_measure(&of->form, arrays, of->count, em_row_payload(row),
                                 em_row_payload_bytes(row));
    }
    const uint8_t *at = em_row_key(row), *end = em_row_payload(row);
    for (size_t i = 0; i < of->count; i++) {
        size_t text_bytes;
        at = em_key_skip(&of->parts[i], arrays[i].kind, at, end, &text_bytes);
        if (at == NULL) {
            return false;
        }
        arrays[i].text_bytes += text_bytes;
    }
    return at == end || end - at == EM_SEQUENCE_BYTES;
}

static size_t text_of_all(const reading *of) {
    size_t total = 0;
    for (size_t i = 0; i < of->count; i++) {
        total += of->arrays[i].text_bytes;
    }
    return total;
}

/* Count the rows from `*next` on that fit `out_bytes`; false when one of them is malformed. */
static bool measure_rows(const reading *of, size_t *next, size_t rows_max, size_t out_bytes,
                         size_t *rows) {
    const size_t fit = em_arrays_rows(of->arrays, of->count, out_bytes);
    rows_max = rows_max < fit ? rows_max : fit;
    *rows = 0;
    while (*rows < rows_max && *next < of->bytes) {
        const uint8_t *row = of->block + *next;
        if (!em_row_is_whole(row, of->bytes - *next) || !measure_row(of, of->arrays, row)) {
            return false;
        }
        const size_t text = text_of_all(of);
        if (text > INT32_MAX ||
            em_arrays_bound(of->arrays, of->count, *rows + 1, text) > out_bytes) {
            break;
        }
        *next += em_row_bytes(row);
        ++*rows;
    }
    return true;
}

/* Measure the texts of rows when all of them fit, which is the usual case. */
static bool measure_whole(const reading *of, size_t *next, size_t rows_max, size_t out_bytes,
                          size_t *rows) {
    for (*rows = 0; *rows < rows_max && *next < of->bytes; ++*rows) {
        const uint8_t *row = of->block + *next;
        if (!em_row_is_whole(row, of->bytes - *next) || !measure_row(of, of->arrays, row)) {
            return false;
        }
        *next += em_row_bytes(row);
    }
    const size_t text = text_of_all(of);
    return text <= INT32_MAX && *rows <= INT32_MAX &&
           em_arrays_bound(of->arrays, of->count, *rows, text) <= out_bytes;
}

static void forget_text(const reading *of) {
    for (size_t i = 0; i < of->count; i++) {
        of->arrays[i].text_bytes = 0;
    }
}

static void read_keys(const reading *of, size_t at, size_t rows) {
    const uint8_t *keys[EM_ROW_COLUMNS_MAX];
    for (size_t first = 0; first < rows; first += EM_ROW_COLUMNS_MAX) {
        const size_t count = rows - first < EM_ROW_COLUMNS_MAX ? rows - first : EM_ROW_COLUMNS_MAX;
        for (size_t r = 0; r < count; r++) {
            keys[r] = em_row_key(of->block + at);
            at += em_row_bytes(of->block + at);
        }
        for (size_t i = 0; i < of->count; i++) {
            em_key_decode_rows(&of->parts[i], keys, &of->arrays[i], first, count);
        }
    }
}

static void read_payloads(const reading *of, size_t at, size_t rows) {
    const uint8_t *packed[EM_ROW_COLUMNS_MAX];
    for (size_t first = 0; first < rows; first += EM_ROW_COLUMNS_MAX) {
        const size_t count = rows - first < EM_ROW_COLUMNS_MAX ? rows - first : EM_ROW_COLUMNS_MAX;
        for (size_t r = 0; r < count; r++) {
            packed[r] = em_row_payload(of->block + at);
            at += em_row_bytes(of->block + at);
        }
        em_row_columns_read(&of->form, of->arrays, of->count, packed, of->block + of->bytes, first,
                            count);
    }
}

static PyObject *describe(const em_array *array, const uint8_t *out, size_t rows) {
    const Py_ssize_t validity = array->validity - out, values = array->values - out;
    const Py_ssize_t validity_end = validity + (Py_ssize_t)((rows + 7) / 8);
    const Py_ssize_t values_end = values + (Py_ssize_t)em_array_values_bytes(array, rows);
    const Py_ssize_t nulls = (Py_ssize_t)array->null_count;
    if (array->ends == NULL) {
        return Py_BuildValue("(in(nn)(nn)O)", (int)array->kind, nulls, validity, validity_end,
                             values, values_end, Py_None);
    }
    const Py_ssize_t ends = (const uint8_t *)array->ends - out;
    return Py_BuildValue("(in(nn)(nn)(nn))", (int)array->kind, nulls, validity, validity_end,
                         values, values_end, ends,
                         ends + (Py_ssize_t)((rows + 1) * sizeof(int32_t)));
}

static PyObject *describe_all(const reading *of, const uint8_t *out, size_t rows, size_t next) {
    PyObject *list = PyList_New((Py_ssize_t)of->count);
    for (size_t i = 0; list != NULL && i < of->count; i++) {
        PyObject *one = describe(&of->arrays[i], out, rows);
        if (one == NULL || PyList_SetItem(list, (Py_ssize_t)i, one) < 0) {
            Py_CLEAR(list);
        }
    }
    return list == NULL ? NULL : Py_BuildValue("(nnN)", (Py_ssize_t)rows, (Py_ssize_t)next, list);
}

/* Decode rows from `start` on into arrays in `out`. */
static PyObject *read_rows(reading *of, Py_ssize_t start, Py_ssize_t rows_max, uint8_t *out,
                           size_t out_bytes) {
    if (start < 0 || (size_t)start > of->bytes || rows_max < 0) {
        return PyErr_Format(PyExc_ValueError, "no %zd rows start at byte %zd of %zu", rows_max,
                            start, of->bytes);
    }
    size_t next = (size_t)start, rows;
    if (!measure_whole(of, &next, (size_t)rows_max, out_bytes, &rows)) {
        forget_text(of);
        next = (size_t)start;
        if (!measure_rows(of, &next, (size_t)rows_max, out_bytes, &rows)) {
            return PyErr_Format(PyExc_ValueError, "the row at byte %zu does not have this form",
                                next);
        }
        if (rows == 0 && (size_t)start < of->bytes && rows_max > 0) {
            return PyErr_Format(PyExc_ValueError, "the row at byte %zd does not fit %zu bytes",
                                start, out_bytes);
        }
        forget_text(of); /* measure again without the row that did not fit */
        for (size_t at = (size_t)start; at < next; at += em_row_bytes(of->block + at)) {
            measure_row(of, of->arrays, of->block + at);
        }
    }
    if (em_arrays_bound(of->arrays, of->count, rows, text_of_all(of)) > out_bytes) {
        return PyErr_Format(PyExc_ValueError, "%zu bytes are too few for the arrays", out_bytes);
    }
    em_arrays_place(of->arrays, of->count, rows, out);
    if (of->parts == NULL) {
        read_payloads(of, (size_t)start, rows);
    } else {
        read_keys(of, (size_t)start, rows);
    }
    return describe_all(of, out, rows, next);
}

/* Make arrays of these kinds, to be freed by the caller; NULL with an exception set. */
static em_array *parse_kinds(PyObject *source, size_t *count) {
    PyObject *list = PySequence_List(source);
    if (list == NULL) {
        return NULL;
    }
    *count = (size_t)PyList_Size(list);
    em_array *arrays = PyMem_Calloc(*count + 1, sizeof *arrays);
    if (arrays == NULL) {
        PyErr_NoMemory();
    }
    for (size_t i = 0; i < *count && arrays != NULL; i++) {
        if (parse_kind(PyList_GetItem(list, (Py_ssize_t)i), &arrays[i].kind, &arrays[i].narrow) <
            0) {
            PyMem_Free(arrays);
            arrays = NULL;
        }
    }
    Py_DECREF(list);
    return arrays;
}

/* Shared by both functions: parse (block, start, rows_max, kinds, out) and, for keys, the spec. */
static PyObject *read_block(PyObject *arguments, const char *format, bool keys) {
    Py_buffer block, out;
    Py_ssize_t start, rows_max;
    PyObject *kinds, *spec = NULL;
    if (!PyArg_ParseTuple(arguments, format, &block, &start, &rows_max, &kinds, &out, &spec)) {
        return NULL;
    }
    PyObject *result = NULL;
    reading of = {.block = block.buf, .bytes = (size_t)block.len};
    of.arrays = parse_kinds(kinds, &of.count);
    bool ready = of.arrays != NULL;
    if (ready) {
        of.form = em_packed_open(of.arrays, of.count);
    }
    if (ready && keys) {
        ready = PyObject_TypeCheck(spec, (PyTypeObject *)key_spec_type) &&
                ((key_spec_object *)spec)->view.count == of.count;
        if (ready) {
            of.parts = ((key_spec_object *)spec)->parts;
        } else {
            PyErr_SetString(PyExc_TypeError, "expected a KeySpec with a kind for each column");
        }
    }
    if (ready) {
        result = read_rows(&of, start, rows_max, out.buf, (size_t)out.len);
    }
    PyMem_Free(of.arrays);
    PyBuffer_Release(&block);
    PyBuffer_Release(&out);
    return result;
}

static PyObject *unpack_rows(PyObject *module, PyObject *arguments) {
    (void)module;
    return read_block(arguments, "y*nnOw*:unpack_rows", false);
}

static PyObject *decode_keys(PyObject *module, PyObject *arguments) {
    (void)module;
    return read_block(arguments, "y*nnOw*O:decode_keys", true);
}

static PyMethodDef functions[] = {
    {"unpack_rows", unpack_rows, METH_VARARGS,
     "unpack_rows($module, block, start, rows_max, kinds, out, "
     "/)\n--\n\nPacked payloads as "
     "Arrow buffers in `out`: (rows, next start, columns)."},
    {"decode_keys", decode_keys, METH_VARARGS,
     "decode_keys($module, block, start, rows_max, kinds, out, spec, "
     "/)\n--\n\nKeys as Arrow "
     "buffers in `out`: (rows, next start, columns)."},
    {NULL, NULL, 0, NULL},
};

int keys_register(PyObject *module) {
    key_spec_type = PyType_FromSpec(&key_spec_spec);
    if (key_spec_type == NULL || PyModule_AddObjectRef(module, "KeySpec", key_spec_type) < 0) {
        return -1;
    }
    return PyModule_AddFunctions(module, functions);
}
