/* BatchJoiner: the batches of an Arrow C stream as messages of an IPC stream, see arrow_join.h. */
#include "native.h"

#include <errno.h>

#include "arrow_join.h"

enum {
    BATCHES_MAX = 64,      /* that one message joins */
    COLUMNS_MAX = 1 << 16, /* so that the sizes of metadata fit 32 bits */
};

typedef struct {
    PyObject ob_base;
    PyObject *capsule; /* of the stream, which it releases; NULL once closed */
    struct ArrowArrayStream *stream;
    em_layout *layouts;
    size_t columns;
    /* Read and not handed on: batches that the next message begins with. */
    struct ArrowArray batches[BATCHES_MAX];
    size_t count;
    bool ended;
    bool is_reading; /* a call runs without the GIL */
} joiner_object;

static void release_batches(joiner_object *self, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (self->batches[i].release != NULL) {
            self->batches[i].release(&self->batches[i]);
        }
    }
    for (size_t i = count; i < self->count; i++) {
        self->batches[i - count] = self->batches[i];
    }
    self->count -= count;
}

static void close_stream(joiner_object *self) {
    release_batches(self, self->count);
    self->ended = true;
    self->stream = NULL;
    Py_CLEAR(self->capsule);
}

static void joiner_dealloc(PyObject *object) {
    joiner_object *self = (joiner_object *)object;
    PyTypeObject *type = Py_TYPE(object);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    close_stream(self);
    PyMem_Free(self->layouts);
    release(object);
    Py_DECREF((PyObject *)type);
}

static int parse_layouts(joiner_object *self, PyObject *layouts) {
    const Py_ssize_t count = PyTuple_Size(layouts);
    if (count > COLUMNS_MAX) {
        PyErr_Format(PyExc_ValueError, "%zd columns are too many", count);
        return -1;
    }
    self->columns = (size_t)count;
    self->layouts = PyMem_Calloc(self->columns + 1, sizeof *self->layouts);
    if (self->layouts == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        int form, width;
        if (!PyArg_ParseTuple(PyTuple_GetItem(layouts, i), "ii:layout", &form, &width)) {
            return -1;
        }
        if (form < EM_FORM_FIXED || form > EM_FORM_LARGE_TEXT || width < 0) {
            PyErr_Format(PyExc_ValueError, "(%d, %d) is no layout", form, width);
            return -1;
        }
        self->layouts[i] = (em_layout){(enum em_form)form, (uint32_t)width};
    }
    return 0;
}

static PyObject *joiner_new(PyTypeObject *type, PyObject *arguments, PyObject *names) {
    static char *keywords[] = {"", "", NULL};
    PyObject *capsule, *layouts;
    if (!PyArg_ParseTupleAndKeywords(arguments, names, "OO!:BatchJoiner", keywords, &capsule,
                                     &PyTuple_Type, &layouts)) {
        return NULL;
    }
    struct ArrowArrayStream *stream = PyCapsule_GetPointer(capsule, "arrow_array_stream");
    if (stream == NULL) {
        return NULL;
    }
    const allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    joiner_object *self = (joiner_object *)allocate(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->capsule = Py_NewRef(capsule);
    self->stream = stream;
    if (parse_layouts(self, layouts) < 0) {
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    return (PyObject *)self;
}

/* Mark the start of a call that runs without the GIL; -1 with an exception set. */
static int begin(joiner_object *self) {
    if (self->is_reading) {
        PyErr_SetString(PyExc_RuntimeError, "another thread reads this stream");
        return -1;
    }
    self->is_reading = true;
    return 0;
}

enum outcome { DONE, FAILED, MISFIT };

/* Read the next batch that has rows; at the end of the stream `ended` is set. */
static enum outcome read_batch(joiner_object *self, int *error) {
    struct ArrowArray *batch = &self->batches[self->count];
    while (!self->ended) {
        *error = self->stream->get_next(self->stream, batch);
        if (*error != 0) {
            return FAILED;
        }
        if (batch->release == NULL) {
            self->ended = true;
        } else if (!em_batch_fits(batch, self->layouts, self->columns)) {
            batch->release(batch);
            return MISFIT;
        } else if (batch->length == 0) {
            batch->release(batch);
        } else {
            self->count++;
            return DONE;
        }
    }
    return DONE;
}

static int64_t rows_of(const joiner_object *self, size_t count) {
    int64_t rows = 0;
    for (size_t i = 0; i < count; i++) {
        rows += self->batches[i].length;
    }
    return rows;
}

/* Read batches until the next one does not fit; return in `fitting` how many do. */
static enum outcome collect(joiner_object *self, size_t room, int64_t rows_max, size_t *fitting,
                            int *error) {
    *fitting = 0;
    while (*fitting < BATCHES_MAX) {
        if (*fitting == self->count) {
            const enum outcome outcome = read_batch(self, error);
            if (outcome != DONE) {
                return outcome;
            }
            if (*fitting == self->count) {
                break; /* the end of the stream */
            }
        }
        const size_t next = *fitting + 1;
        if (rows_of(self, next) > rows_max ||
            em_message_bound(self->batches, next, self->layouts, self->columns) > room) {
            break;
        }
        *fitting = next;
    }
    return DONE;
}

static PyObject *failure(joiner_object *self, enum outcome outcome, int error) {
    if (outcome == MISFIT) {
        PyErr_SetString(PyExc_ValueError, "a batch does not have the columns of its stream");
        return NULL;
    }
    const char *text = self->stream->get_last_error(self->stream);
    PyErr_SetString(error == ENOMEM ? PyExc_MemoryError : PyExc_OSError,
                    text == NULL ? "the stream failed" : text);
    return NULL;
}

static PyObject *joiner_read_into(PyObject *object, PyObject *arguments) {
    joiner_object *self = (joiner_object *)object;
    Py_buffer out;
    long long rows_max;
    if (!PyArg_ParseTuple(arguments, "w*L:read_into", &out, &rows_max)) {
        return NULL;
    }
    PyObject *answer = NULL;
    if ((uintptr_t)out.buf % 8 != 0) {
        PyErr_SetString(PyExc_ValueError, "the memory of a message must be aligned to 8 bytes");
    } else if (begin(self) == 0) {
        size_t fitting, size = 0;
        int64_t rows = 0;
        int error = 0;
        enum outcome outcome;
        Py_BEGIN_ALLOW_THREADS;
        outcome = collect(self, (size_t)out.len, rows_max, &fitting, &error);
        if (outcome == DONE && fitting > 0) {
            rows = rows_of(self, fitting);
            size = em_message_write(self->batches, fitting, self->layouts, self->columns, out.buf);
            release_batches(self, fitting);
        }
        Py_END_ALLOW_THREADS;
        self->is_reading = false;
        answer = outcome == DONE ? Py_BuildValue("Ln", (long long)rows, (Py_ssize_t)size)
                                 : failure(self, outcome, error);
    }
    PyBuffer_Release(&out);
    return answer;
}

static void release_array(PyObject *capsule) {
    struct ArrowArray *array = PyCapsule_GetPointer(capsule, "arrow_array");
    if (array->release != NULL) { /* otherwise its importer has taken it */
        array->release(array);
    }
    PyMem_Free(array);
}

static PyObject *joiner_take(PyObject *object, PyObject *unused) {
    joiner_object *self = (joiner_object *)object;
    (void)unused;
    if (begin(self) < 0) {
        return NULL;
    }
    self->is_reading = false;
    if (self->count == 0) {
        Py_RETURN_NONE;
    }
    struct ArrowArray *array = PyMem_Malloc(sizeof *array);
    if (array == NULL) {
        return PyErr_NoMemory();
    }
    *array = self->batches[0];
    PyObject *capsule = PyCapsule_New(array, "arrow_array", release_array);
    if (capsule == NULL) {
        PyMem_Free(array);
        return NULL;
    }
    self->batches[0].release = NULL; /* moved */
    release_batches(self, 1);
    return capsule;
}

static PyObject *joiner_close(PyObject *object, PyObject *unused) {
    joiner_object *self = (joiner_object *)object;
    (void)unused;
    if (begin(self) < 0) {
        return NULL;
    }
    self->is_reading = false;
    close_stream(self);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"read_into", joiner_read_into, METH_VARARGS,
     "Write a message that joins the next batches into memory; return its rows and its bytes."},
    {"take", joiner_take, METH_NOARGS, "Return the batch that did not fit, as a capsule, or None."},
    {"close", joiner_close, METH_NOARGS, "Release the batches and the stream."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, joiner_new},
    {Py_tp_dealloc, joiner_dealloc},
    {Py_tp_methods, methods},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "emsqrt._kernel._native.BatchJoiner",
    .basicsize = sizeof(joiner_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = slots,
};

int arrow_join_register(PyObject *module) {
    PyObject *type = PyType_FromSpec(&spec);
    const int added = type == NULL ? -1 : PyModule_AddObjectRef(module, "BatchJoiner", type);
    Py_XDECREF(type);
    return added;
}
