/* CsvParser(memory, *, field_count, columns, …): CSV records to columns. */
#include "bind_batch.h"

#include <string.h>

#include "csv_parse.h"
#include "numbers.h"

typedef struct {
    PyObject ob_base;
    batch_memory held;
    em_csv_parser parser;
    uint8_t *nulls;
    bool busy;
} parser_object;

static void parser_dealloc(PyObject *self) {
    parser_object *object = (parser_object *)self;
    PyTypeObject *type = Py_TYPE(self);
    batch_close(&object->held, &object->parser.batch);
    PyMem_Free(object->parser.fields);
    PyMem_Free(object->parser.order);
    PyMem_Free(object->parser.spans);
    PyMem_Free(object->parser.text_bytes);
    PyMem_Free(object->nulls);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

/* Read a character of the dialect: one ASCII character, or -1 for None when that is allowed; -2 on
 * error. */
static int read_mark(const char *text, const char *name, bool optional) {
    if (text == NULL && optional) {
        return -1;
    }
    if (text == NULL || text[0] == '\0' || text[1] != '\0' || (text[0] & 0x80) != 0 ||
        text[0] == '\n' || text[0] == '\r') {
        PyErr_Format(PyExc_ValueError, "%s must be one ASCII character", name);
        return -2;
    }
    return text[0];
}

static int read_dialect(parser_object *object, const char *delimiter, const char *quote) {
    const int separator = read_mark(delimiter, "delimiter", false);
    const int mark = separator == -2 ? -2 : read_mark(quote, "quote", true);
    if (mark == -2) {
        return -1;
    }
    if (mark == separator) {
        PyErr_SetString(PyExc_ValueError, "delimiter and quote must differ");
        return -1;
    }
    object->parser.dialect = (em_dialect){(uint8_t)separator, (int16_t)mark};
    return 0;
}

/* Split [(field, type), …] into the parser's fields and a list of types; NULL on error. */
static PyObject *read_columns(parser_object *object, PyObject *columns) {
    em_csv_parser *parser = &object->parser;
    const Py_ssize_t count = PySequence_Size(columns);
    if (count < 0) {
        return NULL;
    }
    parser->fields = PyMem_Calloc((size_t)count + 1, sizeof *parser->fields);
    parser->order = PyMem_Calloc((size_t)count + 1, sizeof *parser->order);
    parser->spans = PyMem_Calloc((size_t)count + 1, sizeof *parser->spans);
    parser->text_bytes = PyMem_Calloc((size_t)count + 1, sizeof *parser->text_bytes);
    if (parser->fields == NULL || parser->order == NULL || parser->spans == NULL ||
        parser->text_bytes == NULL) {
        return PyErr_NoMemory();
    }
    PyObject *types = PyList_New(0);
    for (Py_ssize_t i = 0; types != NULL && i < count; i++) {
        Py_ssize_t field = -1;
        PyObject *type = NULL, *item = PySequence_GetItem(columns, i);
        if (item == NULL ||
            !PyArg_ParseTuple(item, "nU;a column is (field, type)", &field, &type) ||
            PyList_Append(types, type) < 0) {
            Py_CLEAR(types);
        } else if (field < 0 || (size_t)field >= parser->field_count) {
            PyErr_Format(PyExc_ValueError, "no field %zd among %zu", field, parser->field_count);
            Py_CLEAR(types);
        }
        Py_XDECREF(item);
        if (types != NULL) {
            parser->fields[i] = (uint32_t)field;
        }
    }
    for (Py_ssize_t i = 0; types != NULL && i < count; i++) { /* insertion sort by field */
        Py_ssize_t at = i;
        for (; at > 0 && parser->fields[parser->order[at - 1]] > parser->fields[i]; at--) {
            parser->order[at] = parser->order[at - 1];
        }
        parser->order[at] = (uint32_t)i;
    }
    return types;
}

static int read_nulls(parser_object *object, PyObject *texts) {
    const Py_ssize_t count = PySequence_Size(texts);
    if (count < 0) {
        return -1;
    }
    object->nulls = PyMem_Calloc((size_t)count + 1, 256);
    if (object->nulls == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    uint8_t *at = object->nulls;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *item = PySequence_GetItem(texts, i);
        Py_ssize_t size = 0;
        const char *text = item == NULL ? NULL : PyUnicode_AsUTF8AndSize(item, &size);
        if (text != NULL && size <= 255) {
            object->parser.empty_is_null |= size == 0;
            *at = (uint8_t)size;
            memcpy(at + 1, text, (size_t)size);
            at += size == 0 ? 0 : 1 + size;
        } else if (text != NULL) {
            PyErr_SetString(PyExc_ValueError, "a text for NULL has at most 255 bytes");
        }
        Py_XDECREF(item);
        if (text == NULL || size > 255) {
            return -1;
        }
    }
    object->parser.nulls = object->nulls;
    object->parser.nulls_bytes = (size_t)(at - object->nulls);
    return 0;
}

static PyObject *parser_new(PyTypeObject *type, PyObject *arguments, PyObject *named) {
    static char *names[] = {"memory",      "field_count", "columns",      "delimiter", "quote",
                            "null_values", "on_error",    "check_fields", "exact",     NULL};
    PyObject *memory, *columns = NULL, *nulls = NULL;
    Py_ssize_t field_count = 0;
    const char *delimiter = ",", *quote = "\"", *on_error = "fail";
    int check_fields = 1, exact = 0;
    if (!PyArg_ParseTupleAndKeywords(arguments, named, "O|$nOszOspp:CsvParser", names, &memory,
                                     &field_count, &columns, &delimiter, &quote, &nulls, &on_error,
                                     &check_fields, &exact)) {
        return NULL;
    }
    if (columns == NULL) {
        PyErr_SetString(PyExc_TypeError, "CsvParser needs field_count and columns");
        return NULL;
    }
    if (field_count < 1 || field_count > (Py_ssize_t)UINT32_MAX - 1) {
        return PyErr_Format(PyExc_ValueError, "a record has fields, not %zd", field_count);
    }
    const allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    parser_object *object = (parser_object *)allocate(type, 0);
    if (object == NULL) {
        return NULL;
    }
    object->parser.field_count = (size_t)field_count;
    object->parser.check_fields = check_fields != 0;
    object->parser.exact = exact != 0;
    object->parser.empty_is_null = nulls == NULL;
    PyObject *types = read_columns(object, columns);
    const bool failed = types == NULL || read_dialect(object, delimiter, quote) < 0 ||
                        reading_policy(&object->parser.reading, on_error) < 0 ||
                        (nulls != NULL && read_nulls(object, nulls) < 0) ||
                        batch_open(&object->held, &object->parser.batch, memory, types) < 0;
    Py_XDECREF(types);
    for (size_t i = 0; !failed && exact && i < object->parser.batch.column_count; i++) {
        em_make_exact(&object->parser.batch.columns[i].type);
    }
    if (failed) {
        Py_CLEAR(object);
    }
    return (PyObject *)object;
}

static PyObject *parser_parse(PyObject *self, PyObject *arguments) {
    parser_object *object = (parser_object *)self;
    em_csv_parser *parser = &object->parser;
    Py_buffer block;
    Py_ssize_t start = 0;
    if (!PyArg_ParseTuple(arguments, "y*|n:parse", &block, &start)) {
        return NULL;
    }
    const char *refused =
        block_refused(&block, start, object->busy || batch_is_read(&object->held));
    if (refused != NULL) {
        PyBuffer_Release(&block);
        PyErr_SetString(PyExc_ValueError, refused);
        return NULL;
    }
    batch_reclaim(&object->held);
    object->busy = true;
    size_t next;
    Py_BEGIN_ALLOW_THREADS;
    next = em_csv_parse(parser, block.buf, (size_t)start, (size_t)block.len);
    Py_END_ALLOW_THREADS;
    object->busy = false;
    if (parser->reading.fault.reason != EM_SOUND) {
        reading_raise(&parser->reading, block.buf);
        PyBuffer_Release(&block);
        return NULL;
    }
    return batch_lend(&object->held, &parser->batch, &block, next);
}

static PyObject *parser_release(PyObject *self, PyObject *nothing) {
    (void)nothing;
    parser_object *object = (parser_object *)self;
    if (object->busy || batch_is_read(&object->held)) {
        PyErr_SetString(PyExc_RuntimeError, "another thread reads what was parsed");
        return NULL;
    }
    batch_reclaim(&object->held);
    Py_RETURN_NONE;
}

static PyObject *get_counter(PyObject *self, void *which) {
    return reading_counter(&((parser_object *)self)->parser.reading, (uintptr_t)which);
}

static PyObject *get_skipped(PyObject *self, void *unused) {
    (void)unused;
    return reading_skipped(&((parser_object *)self)->parser.reading);
}

static PyMethodDef parser_methods[] = {
    {"parse", parser_parse, METH_VARARGS,
     "Parse records of a block from `start`; return (Columns, where the next record starts)."},
    {"release", parser_release, METH_NOARGS,
     "Empty the columns of the last call and release its block."},
    {NULL, NULL, 0, NULL},
};
static PyGetSetDef parser_getters[] = {
    {"records", get_counter, NULL, "Records read so far, skipped ones included.", (void *)0},
    {"nulled", get_counter, NULL, "Values that became NULL because they could not be parsed.",
     (void *)1},
    {"skipped", get_counter, NULL, "Records skipped so far.", (void *)2},
    {"skipped_records", get_skipped, NULL,
     "(offset, size, field, reason) of each record that the last call skipped.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
static PyType_Slot parser_slots[] = {
    {Py_tp_doc, "Parses the wanted fields of whole CSV records into columns in `memory`."},
    {Py_tp_new, parser_new},
    {Py_tp_dealloc, parser_dealloc},
    {Py_tp_methods, parser_methods},
    {Py_tp_getset, parser_getters},
    {0, NULL},
};
static PyType_Spec parser_spec = {
    .name = "emsqrt._kernel.CsvParser",
    .basicsize = sizeof(parser_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = parser_slots,
};

int csv_register(PyObject *module) {
    if (!em_numbers_open()) {
        PyErr_SetString(PyExc_OSError, "the C library has no \"C\" locale");
        return -1;
    }
    PyObject *type = PyType_FromSpec(&parser_spec);
    const int failed = type == NULL ? -1 : PyModule_AddObjectRef(module, "CsvParser", type);
    Py_XDECREF(type);
    return failed;
}
