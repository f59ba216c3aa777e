/* CsvFormatter(types) and LineWriter(...): write columns and records as CSV text to a buffer. */
#include "native.h"

#include <string.h>

#include "bind_write.h"
#include "csv_write.h"
#include "rows.h"

typedef struct {
    PyObject ob_base;
    em_type *types;
    size_t count;
    uint8_t delimiter; /* of the output */
} formatter_object;

typedef struct {
    PyObject ob_base;
    em_csv_writer writer;
    uint32_t *fields, *instead;
} writer_object;

static void free_object(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

void close_request(write_request *request) {
    PyBuffer_Release(&request->out);
    if (request->keep.obj != NULL) {
        PyBuffer_Release(&request->keep);
    }
}

int open_request(PyObject *arguments, write_request *request) {
    PyObject *columns, *keep = Py_None;
    Py_ssize_t start;
    request->keep.obj = NULL;
    request->kept = NULL;
    if (!PyArg_ParseTuple(arguments, "Onw*|O", &columns, &start, &request->out, &keep)) {
        return -1;
    }
    request->columns = columns_view(columns);
    bool failed = request->columns == NULL;
    if (!failed && (start < 0 || (size_t)start > request->columns->row_count)) {
        PyErr_Format(PyExc_ValueError, "no row %zd among %zu", start, request->columns->row_count);
        failed = true;
    }
    if (!failed && keep != Py_None) {
        failed = PyObject_GetBuffer(keep, &request->keep, PyBUF_SIMPLE) < 0;
        if (failed) {
            request->keep.obj = NULL;
        } else if ((size_t)request->keep.len < (request->columns->row_count + 7) / 8) {
            PyErr_SetString(PyExc_ValueError, "keep has a bit for each row");
            failed = true;
        } else {
            request->kept = request->keep.buf;
        }
    }
    if (failed) {
        close_request(request);
        return -1;
    }
    request->start = (size_t)start;
    return 0;
}

static bool is_mark(const char *text) {
    const bool fits = text[0] != '\0' && (text[0] & 0x80) == 0 && text[1] == '\0' &&
                      text[0] != '\n' && text[0] != '\r';
    if (!fits) {
        PyErr_SetString(PyExc_ValueError, "delimiter and quote are one ASCII character each");
    }
    return fits;
}

/* CsvFormatter -------------------------------------------------------------------------------- */

static void formatter_dealloc(PyObject *self) {
    PyMem_Free(((formatter_object *)self)->types);
    free_object(self);
}

em_type *types_of(PyObject *texts) {
    const Py_ssize_t count = PySequence_Size(texts);
    em_type *types = count < 0 ? NULL : PyMem_Calloc((size_t)count + 1, sizeof *types);
    if (types == NULL) {
        return count < 0 ? NULL : (em_type *)PyErr_NoMemory();
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *item = PySequence_GetItem(texts, i);
        const char *text = item == NULL ? NULL : PyUnicode_AsUTF8AndSize(item, NULL);
        const bool known = text != NULL && em_parse_type(text, &types[i]);
        if (text != NULL && !known) {
            PyErr_Format(PyExc_ValueError, "no column is written as %s", text);
        }
        Py_XDECREF(item);
        if (!known) {
            PyMem_Free(types);
            return NULL;
        }
    }
    return types;
}

bool are_of_types(const em_columns *columns, const em_type *types, size_t count) {
    bool fits = columns->column_count == count;
    for (size_t i = 0; fits && i < count; i++) {
        fits = columns->columns[i].kind == types[i].kind;
    }
    if (!fits) {
        PyErr_SetString(PyExc_ValueError, "these columns are not of the formatter's types");
    }
    return fits;
}

static PyObject *formatter_new(PyTypeObject *type, PyObject *arguments, PyObject *named) {
    static char *names[] = {"types", "delimiter", NULL};
    PyObject *texts;
    const char *delimiter = ",";
    if (!PyArg_ParseTupleAndKeywords(arguments, named, "O|$s:CsvFormatter", names, &texts,
                                     &delimiter) ||
        !is_mark(delimiter)) {
        return NULL;
    }
    const allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    formatter_object *object = (formatter_object *)allocate(type, 0);
    if (object == NULL) {
        return NULL;
    }
    object->delimiter = (uint8_t)*delimiter;
    object->types = types_of(texts);
    if (object->types == NULL) {
        Py_DECREF(object);
        return NULL;
    }
    object->count = (size_t)PySequence_Size(texts);
    return (PyObject *)object;
}

static PyObject *formatter_format(PyObject *self, PyObject *arguments) {
    const formatter_object *object = (formatter_object *)self;
    write_request request;
    if (open_request(arguments, &request) < 0) {
        return NULL;
    }
    if (!are_of_types(request.columns, object->types, object->count)) {
        close_request(&request);
        return NULL;
    }
    size_t next, written;
    next = em_csv_format(object->types, object->delimiter, request.columns, request.start,
                         request.kept, request.out.buf, (size_t)request.out.len, &written);
    close_request(&request);
    return Py_BuildValue("KK", (unsigned long long)next, (unsigned long long)written);
}

/* LineWriter ---------------------------------------------------------------------------------- */

static void writer_dealloc(PyObject *self) {
    PyMem_Free(((writer_object *)self)->fields);
    PyMem_Free(((writer_object *)self)->instead);
    PyMem_Free(((writer_object *)self)->writer.spans);
    free_object(self);
}

static int read_fields(writer_object *object, PyObject *fields, Py_ssize_t record_fields) {
    em_csv_writer *writer = &object->writer;
    const Py_ssize_t count = fields == Py_None ? 0 : PySequence_Size(fields);
    if (count < 0) {
        return -1;
    }
    writer->record_fields = (size_t)record_fields;
    writer->field_count = (size_t)count;
    writer->spans = PyMem_Calloc((size_t)record_fields + 1, sizeof *writer->spans);
    object->fields = PyMem_Calloc((size_t)count + 1, sizeof *object->fields);
    if (writer->spans == NULL || object->fields == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *item = PySequence_GetItem(fields, i);
        const Py_ssize_t field = item == NULL ? -1 : PyNumber_AsSsize_t(item, PyExc_IndexError);
        Py_XDECREF(item);
        if (field < 0 || field >= record_fields) {
            if (!PyErr_Occurred()) {
                PyErr_Format(PyExc_ValueError, "no field %zd among %zd", field, record_fields);
            }
            return -1;
        }
        object->fields[i] = (uint32_t)field;
    }
    writer->fields = fields == Py_None ? NULL : object->fields;
    return 0;
}

/* Read for each written field the one that replaces it when it is empty; -1 is none. */
static int read_instead(writer_object *object, PyObject *instead) {
    const size_t count = object->writer.field_count;
    if (instead == Py_None) {
        return 0;
    }
    if (PySequence_Size(instead) != (Py_ssize_t)count || object->writer.fields == NULL) {
        PyErr_SetString(PyExc_ValueError, "instead must have one field for each of fields");
        return -1;
    }
    object->instead = PyMem_Calloc(count + 1, sizeof *object->instead);
    if (object->instead == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t i = 0; i < count; i++) {
        PyObject *item = PySequence_GetItem(instead, (Py_ssize_t)i);
        const Py_ssize_t field = item == NULL ? -1 : PyNumber_AsSsize_t(item, PyExc_IndexError);
        Py_XDECREF(item);
        if (PyErr_Occurred()) {
            return -1;
        }
        object->instead[i] = field < 0 ? UINT32_MAX : (uint32_t)field;
    }
    object->writer.instead = object->instead;
    return 0;
}

static PyObject *writer_new(PyTypeObject *type, PyObject *arguments, PyObject *named) {
    static char *names[] = {"fields",        "record_fields", "delimiter", "quote",
                            "out_delimiter", "instead",       NULL};
    PyObject *fields = Py_None, *instead = Py_None;
    Py_ssize_t record_fields = 0;
    const char *delimiter = ",", *quote = "\"", *out_delimiter = ",";
    if (!PyArg_ParseTupleAndKeywords(arguments, named, "|O$nszsO:LineWriter", names, &fields,
                                     &record_fields, &delimiter, &quote, &out_delimiter,
                                     &instead) ||
        !is_mark(delimiter) || !is_mark(out_delimiter) || (quote != NULL && !is_mark(quote))) {
        return NULL;
    }
    if (record_fields < 0 || record_fields > (Py_ssize_t)UINT32_MAX - 1) {
        return PyErr_Format(PyExc_ValueError, "no record has %zd fields", record_fields);
    }
    const allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    writer_object *object = (writer_object *)allocate(type, 0);
    if (object == NULL) {
        return NULL;
    }
    object->writer.delimiter = (uint8_t)*out_delimiter;
    object->writer.dialect =
        (em_dialect){(uint8_t)*delimiter, quote == NULL ? -1 : (int16_t)(uint8_t)*quote};
    if (read_fields(object, fields, record_fields) < 0 || read_instead(object, instead) < 0) {
        Py_CLEAR(object);
    }
    return (PyObject *)object;
}

static PyObject *writer_write(PyObject *self, PyObject *arguments) {
    const em_csv_writer *writer = &((writer_object *)self)->writer;
    write_request request;
    if (open_request(arguments, &request) < 0) {
        return NULL;
    }
    const em_columns *columns = request.columns;
    size_t row = request.start, at = 0;
    if (columns->lines == NULL && columns->row_count > 0) {
        close_request(&request);
        PyErr_SetString(PyExc_ValueError, "these columns were not parsed from text");
        return NULL;
    }
    for (; row < columns->row_count; row++) {
        size_t written;
        if (request.kept != NULL && !em_bit(request.kept, row)) {
            continue;
        }
        const em_span line = columns->lines[row];
        if (!em_csv_write_line(writer, columns->text + line.start, line.size,
                               (uint8_t *)request.out.buf + at, (size_t)request.out.len - at,
                               &written)) {
            break;
        }
        at += written;
    }
    close_request(&request);
    return Py_BuildValue("KK", (unsigned long long)row, (unsigned long long)at);
}

static PyObject *writer_write_rows(PyObject *self, PyObject *arguments) {
    const em_csv_writer *writer = &((writer_object *)self)->writer;
    Py_buffer rows, out;
    Py_ssize_t start;
    if (!PyArg_ParseTuple(arguments, "y*nw*:write_rows", &rows, &start, &out)) {
        return NULL;
    }
    bool sound = start >= 0 && start <= rows.len;
    size_t from = sound ? (size_t)start : 0, at = 0;
    const size_t size = (size_t)rows.len;
    while (sound && from < size) {
        const uint8_t *row = (const uint8_t *)rows.buf + from;
        sound = size - from >= EM_ROW_HEAD_BYTES && em_row_bytes(row) <= size - from &&
                em_row_bytes(row) >= EM_ROW_HEAD_BYTES &&
                em_row_key_bytes(row) <= em_row_bytes(row) - EM_ROW_HEAD_BYTES;
        size_t written;
        if (!sound || !em_csv_write_line(writer, em_row_payload(row), em_row_payload_bytes(row),
                                         (uint8_t *)out.buf + at, (size_t)out.len - at, &written)) {
            break;
        }
        at += written;
        from += em_row_bytes(row);
    }
    PyBuffer_Release(&rows);
    PyBuffer_Release(&out);
    if (!sound) {
        return PyErr_Format(PyExc_ValueError, "no row starts at byte %zu of the block", from);
    }
    return Py_BuildValue("KK", (unsigned long long)from, (unsigned long long)at);
}

/* Registration -------------------------------------------------------------------------------- */

static PyMethodDef formatter_methods[] = {
    {"format", formatter_format, METH_VARARGS,
     "Write rows as CSV from a row on; return (the next row, bytes written)."},
    {NULL, NULL, 0, NULL},
};
static PyType_Slot formatter_slots[] = {
    {Py_tp_doc, "Writes columns as CSV: comma, quotes only where needed, LF."},
    {Py_tp_new, formatter_new},
    {Py_tp_dealloc, formatter_dealloc},
    {Py_tp_methods, formatter_methods},
    {0, NULL},
};
static PyType_Spec formatter_spec = {
    .name = "emsqrt._kernel.CsvFormatter",
    .basicsize = sizeof(formatter_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = formatter_slots,
};

static PyMethodDef writer_methods[] = {
    {"write", writer_write, METH_VARARGS,
     "Write the records of columns from a row on; return (the next row, bytes written)."},
    {"write_rows", writer_write_rows, METH_VARARGS,
     "Write the records in the payloads of packed rows, from a byte on; return (the next byte, "
     "bytes)."},
    {NULL, NULL, 0, NULL},
};
static PyType_Slot writer_slots[] = {
    {Py_tp_doc, "Writes records unchanged, or a selection of their fields, quoted again."},
    {Py_tp_new, writer_new},
    {Py_tp_dealloc, writer_dealloc},
    {Py_tp_methods, writer_methods},
    {0, NULL},
};
static PyType_Spec writer_spec = {
    .name = "emsqrt._kernel.LineWriter",
    .basicsize = sizeof(writer_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = writer_slots,
};

int csv_write_register(PyObject *module) {
    PyObject *formatter = PyType_FromSpec(&formatter_spec);
    PyObject *writer = PyType_FromSpec(&writer_spec);
    const int failed = formatter == NULL || writer == NULL ||
                       PyModule_AddObjectRef(module, "CsvFormatter", formatter) < 0 ||
                       PyModule_AddObjectRef(module, "LineWriter", writer) < 0;
    Py_XDECREF(formatter);
    Py_XDECREF(writer);
    return -failed;
}
