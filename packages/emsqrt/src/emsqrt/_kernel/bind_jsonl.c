/* JsonlParser(memory, *, columns, …), JsonlFormatter(columns) and JsonRowsFormatter(types): JSON and
 * columns. */
#include "bind_batch.h"

#include <string.h>

#include "bind_write.h"
#include "jsonl.h"

enum { NAME_BYTES_MAX = 1000 };

typedef struct {
    PyObject ob_base;
    batch_memory held;
    em_jsonl_parser parser;
    uint8_t *text; /* the encoded names */
    bool busy;
} parser_object;

typedef struct {
    PyObject ob_base;
    em_type *types;
    em_name *names;
    uint8_t *text;
    size_t count;
} formatter_object;

static void free_object(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

/* Write `"name":` as Python's json does: with the short escapes for backspace and form feed. */
static size_t encode_name(const uint8_t *name, size_t size, uint8_t *out, size_t room) {
    size_t at = 0;
    out[at++] = '"';
    for (size_t i = 0; i < size; i++) {
        if (name[i] == '\b' || name[i] == '\f') {
            out[at++] = '\\';
            out[at++] = name[i] == '\b' ? 'b' : 'f';
        } else {
            at += (size_t)em_json_encode(name + i, 1, out + at, room - at);
        }
    }
    out[at++] = '"';
    out[at++] = ':';
    return at;
}

/* Read [(name, type), …]: return a list of the types, and the names, each as `"…":` when `encoded`.
 */
static PyObject *read_columns(PyObject *columns, em_name **names, uint8_t **text, bool encoded) {
    const Py_ssize_t count = PySequence_Size(columns);
    if (count < 0) {
        return NULL;
    }
    const size_t room = 6 * NAME_BYTES_MAX + 3;
    *names = PyMem_Calloc((size_t)count + 1, sizeof **names);
    *text = PyMem_Calloc((size_t)count + 1, encoded ? room : NAME_BYTES_MAX);
    PyObject *types = *names == NULL || *text == NULL ? PyErr_NoMemory() : PyList_New(0);
    uint8_t *at = *text;
    for (Py_ssize_t i = 0; types != NULL && i < count; i++) {
        PyObject *name = NULL, *type = NULL, *item = PySequence_GetItem(columns, i);
        Py_ssize_t size = 0;
        const char *word = NULL;
        if (item != NULL && PyArg_ParseTuple(item, "UU;a column is (name, type)", &name, &type)) {
            word = PyUnicode_AsUTF8AndSize(name, &size);
        }
        if (word == NULL || PyList_Append(types, type) < 0) {
            Py_CLEAR(types);
        } else if (size > NAME_BYTES_MAX) {
            PyErr_Format(PyExc_ValueError, "a column's name has at most %d bytes", NAME_BYTES_MAX);
            Py_CLEAR(types);
        } else if (encoded) {
            const size_t bytes = encode_name((const uint8_t *)word, (size_t)size, at, room);
            (*names)[i] = (em_name){at, bytes};
            at += bytes;
        } else {
            memcpy(at, word, (size_t)size);
            (*names)[i] = (em_name){at, (size_t)size};
            at += size;
        }
        Py_XDECREF(item);
    }
    return types;
}

/* JsonlParser --------------------------------------------------------------------------------- */

static void parser_dealloc(PyObject *self) {
    parser_object *object = (parser_object *)self;
    batch_close(&object->held, &object->parser.batch);
    PyMem_Free(object->parser.names);
    PyMem_Free(object->parser.spans);
    PyMem_Free(object->parser.text_bytes);
    PyMem_Free(object->text);
    free_object(self);
}

static PyObject *parser_new(PyTypeObject *type, PyObject *arguments, PyObject *named) {
    static char *names[] = {"memory", "columns", "on_error", NULL};
    PyObject *memory, *columns = NULL;
    const char *on_error = "fail";
    if (!PyArg_ParseTupleAndKeywords(arguments, named, "OO|$s:JsonlParser", names, &memory,
                                     &columns, &on_error)) {
        return NULL;
    }
    const allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    parser_object *object = (parser_object *)allocate(type, 0);
    if (object == NULL) {
        return NULL;
    }
    em_jsonl_parser *parser = &object->parser;
    PyObject *types = read_columns(columns, &parser->names, &object->text, false);
    bool failed = types == NULL || reading_policy(&parser->reading, on_error) < 0 ||
                  batch_open(&object->held, &parser->batch, memory, types) < 0;
    Py_XDECREF(types);
    if (!failed) {
        const size_t count = parser->batch.column_count + 1;
        parser->spans = PyMem_Calloc(count, sizeof *parser->spans);
        parser->text_bytes = PyMem_Calloc(count, sizeof *parser->text_bytes);
        failed = parser->spans == NULL || parser->text_bytes == NULL;
        if (failed) {
            PyErr_NoMemory();
        }
    }
    if (failed) {
        Py_CLEAR(object);
    }
    return (PyObject *)object;
}

static PyObject *parser_parse(PyObject *self, PyObject *arguments) {
    parser_object *object = (parser_object *)self;
    em_jsonl_parser *parser = &object->parser;
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
    next = em_jsonl_parse(parser, block.buf, (size_t)start, (size_t)block.len);
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

/* JsonlFormatter ------------------------------------------------------------------------------ */

static void formatter_dealloc(PyObject *self) {
    formatter_object *object = (formatter_object *)self;
    PyMem_Free(object->types);
    PyMem_Free(object->names);
    PyMem_Free(object->text);
    free_object(self);
}

static PyObject *formatter_new(PyTypeObject *type, PyObject *arguments, PyObject *named) {
    (void)named;
    PyObject *columns;
    if (!PyArg_ParseTuple(arguments, "O:JsonlFormatter", &columns)) {
        return NULL;
    }
    const allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    formatter_object *object = (formatter_object *)allocate(type, 0);
    if (object == NULL) {
        return NULL;
    }
    PyObject *types = read_columns(columns, &object->names, &object->text, true);
    bool failed = types == NULL;
    if (!failed) {
        object->count = (size_t)PyList_Size(types);
        object->types = types_of(types);
        failed = object->types == NULL;
    }
    Py_XDECREF(types);
    if (failed) {
        Py_CLEAR(object);
    }
    return (PyObject *)object;
}

static PyObject *rows_formatter_new(PyTypeObject *type, PyObject *arguments, PyObject *named) {
    (void)named;
    PyObject *texts;
    if (!PyArg_ParseTuple(arguments, "O:JsonRowsFormatter", &texts)) {
        return NULL;
    }
    const allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    formatter_object *object = (formatter_object *)allocate(type, 0);
    if (object == NULL) {
        return NULL;
    }
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
    size_t written;
    const size_t next =
        em_jsonl_format(object->types, object->names, request.columns, request.start, request.kept,
                        request.out.buf, (size_t)request.out.len, &written);
    close_request(&request);
    return Py_BuildValue("KK", (unsigned long long)next, (unsigned long long)written);
}

/* Registration -------------------------------------------------------------------------------- */

static PyMethodDef parser_methods[] = {
    {"parse", parser_parse, METH_VARARGS,
     "Parse lines of a block from `start`; return (Columns, where the next line starts)."},
    {"release", parser_release, METH_NOARGS,
     "Empty the columns of the last call and release its block."},
    {NULL, NULL, 0, NULL},
};
static PyGetSetDef parser_getters[] = {
    {"records", get_counter, NULL, "Lines read so far, skipped ones included.", (void *)0},
    {"nulled", get_counter, NULL, "Values that became NULL because they could not be parsed.",
     (void *)1},
    {"skipped", get_counter, NULL, "Lines skipped so far.", (void *)2},
    {"skipped_records", get_skipped, NULL,
     "(offset, size, column, reason) of each line that the last call skipped.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
static PyType_Slot parser_slots[] = {
    {Py_tp_doc, "Parses the wanted members of JSON Lines into columns in `memory`."},
    {Py_tp_new, parser_new},
    {Py_tp_dealloc, parser_dealloc},
    {Py_tp_methods, parser_methods},
    {Py_tp_getset, parser_getters},
    {0, NULL},
};
static PyType_Spec parser_spec = {
    .name = "emsqrt._kernel.JsonlParser",
    .basicsize = sizeof(parser_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = parser_slots,
};

static PyMethodDef formatter_methods[] = {
    {"format", formatter_format, METH_VARARGS,
     "Write rows from a row on; return (the next row, bytes written)."},
    {NULL, NULL, 0, NULL},
};
static PyType_Slot formatter_slots[] = {
    {Py_tp_doc, "Writes columns as one JSON object a line."},
    {Py_tp_new, formatter_new},
    {Py_tp_dealloc, formatter_dealloc},
    {Py_tp_methods, formatter_methods},
    {0, NULL},
};
static PyType_Spec formatter_spec = {
    .name = "emsqrt._kernel.JsonlFormatter",
    .basicsize = sizeof(formatter_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = formatter_slots,
};

static PyType_Slot rows_formatter_slots[] = {
    {Py_tp_doc, "Writes columns as one JSON array a row, each after a comma."},
    {Py_tp_new, rows_formatter_new},
    {Py_tp_dealloc, formatter_dealloc},
    {Py_tp_methods, formatter_methods},
    {0, NULL},
};
static PyType_Spec rows_formatter_spec = {
    .name = "emsqrt._kernel.JsonRowsFormatter",
    .basicsize = sizeof(formatter_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = rows_formatter_slots,
};

int jsonl_register(PyObject *module) {
    PyObject *parser = PyType_FromSpec(&parser_spec);
    PyObject *formatter = PyType_FromSpec(&formatter_spec);
    PyObject *rows_formatter = PyType_FromSpec(&rows_formatter_spec);
    const int failed = parser == NULL || formatter == NULL || rows_formatter == NULL ||
                       PyModule_AddObjectRef(module, "JsonlParser", parser) < 0 ||
                       PyModule_AddObjectRef(module, "JsonlFormatter", formatter) < 0 ||
                       PyModule_AddObjectRef(module, "JsonRowsFormatter", rows_formatter) < 0;
    Py_XDECREF(parser);
    Py_XDECREF(formatter);
    Py_XDECREF(rows_formatter);
    return -failed;
}
