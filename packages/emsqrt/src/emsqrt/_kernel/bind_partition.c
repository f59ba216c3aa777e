/* Partitioner: rows partitioned into buffers. */
#include "bind_join.h"

#include "partition.h"

typedef struct {
    PyObject ob_base;
    Py_buffer memory, filter;
    PyObject *bounds; /* a tuple of bytes */
    em_bound *ranges;
    em_partitioner partitioner;
} partitioner_object;

static void partitioner_dealloc(PyObject *object) {
    partitioner_object *self = (partitioner_object *)object;
    PyMem_Free(self->partitioner.used);
    PyMem_Free(self->partitioner.rows);
    PyMem_Free(self->ranges);
    Py_XDECREF(self->bounds);
    if (self->filter.obj != NULL) {
        PyBuffer_Release(&self->filter);
    }
    release_object(object, &self->memory);
}

/* Read the ascending keys at which ranges begin. */
static int parse_bounds(partitioner_object *self, PyObject *bounds) {
    const Py_ssize_t count = PyTuple_Size(bounds);
    self->ranges = PyMem_Calloc((size_t)count + 1, sizeof *self->ranges);
    if (self->ranges == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    self->bounds = Py_NewRef(bounds);
    for (Py_ssize_t i = 0; i < count; i++) {
        char *key;
        Py_ssize_t bytes;
        if (PyBytes_AsStringAndSize(PyTuple_GetItem(bounds, i), &key, &bytes) < 0) {
            return -1;
        }
        self->ranges[i] = (em_bound){(const uint8_t *)key, (uint32_t)bytes};
    }
    self->partitioner.bounds = self->ranges;
    return 0;
}

/* Use the word-aligned part of a buffer for a filter; the partitioner that fills it zeroes it
 * first. */
static int open_filter(partitioner_object *self, PyObject *memory, bool fills) {
    if (PyObject_GetBuffer(memory, &self->filter, PyBUF_WRITABLE) < 0) {
        return -1;
    }
    const size_t word = sizeof(uint64_t);
    uint8_t *start = self->filter.buf;
    const size_t skipped = (word - (uintptr_t)start % word) % word;
    const size_t size = (size_t)self->filter.len;
    em_key_filter *filter = &self->partitioner.filter;
    filter->words = (uint64_t *)(void *)(start + skipped);
    filter->count = size < skipped ? 0 : (size - skipped) / word;
    filter->fills = fills;
    if (fills) {
        memset(filter->words, 0, filter->count * word);
    }
    return 0;
}

static PyObject *partitioner_new(PyTypeObject *type, PyObject *arguments, PyObject *names) {
    static char *keywords[] = {"", "", "", "bounds", "key_filter", "fills", NULL};
    PyObject *memory, *bounds = NULL, *filter = Py_None;
    Py_ssize_t fan_out, level;
    int fills = 0;
    if (!PyArg_ParseTupleAndKeywords(arguments, names, "Onn|$O!Op:Partitioner", keywords, &memory,
                                     &fan_out, &level, &PyTuple_Type, &bounds, &filter, &fills)) {
        return NULL;
    }
    if (bounds != NULL && PyTuple_Size(bounds) != fan_out - 1) {
        return PyErr_Format(PyExc_ValueError, "%zd bounds do not make %zd ranges",
                            PyTuple_Size(bounds), fan_out);
    }
    if (fan_out < 1 || fan_out > UINT16_MAX || level < 0) {
        return PyErr_Format(PyExc_ValueError, "no partitioner has a fan-out of %zd at level %zd",
                            fan_out, level);
    }
    const allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    partitioner_object *self = (partitioner_object *)allocate(type, 0);
    if (self == NULL || PyObject_GetBuffer(memory, &self->memory, PyBUF_WRITABLE) < 0) {
        Py_XDECREF((PyObject *)self);
        return NULL;
    }
    if ((bounds != NULL && parse_bounds(self, bounds) < 0) ||
        (filter != Py_None && open_filter(self, filter, fills != 0) < 0)) {
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    em_partitioner *partitioner = &self->partitioner;
    const size_t buffers = (size_t)fan_out + 1;
    partitioner->memory = self->memory.buf;
    partitioner->buffer_bytes = (size_t)self->memory.len / buffers;
    partitioner->fan_out = (uint32_t)fan_out;
    partitioner->seed = em_fold((uint64_t)level + 1, UINT64_C(0xC2B2AE3D27D4EB4F));
    partitioner->used = PyMem_Calloc(buffers, sizeof *partitioner->used);
    partitioner->rows = PyMem_Calloc(buffers, sizeof *partitioner->rows);
    if (partitioner->used == NULL || partitioner->rows == NULL) {
        Py_DECREF((PyObject *)self);
        return PyErr_NoMemory();
    }
    return (PyObject *)self;
}

static PyObject *partitioner_add(PyObject *object, PyObject *arguments) {
    em_partitioner *partitioner = &((partitioner_object *)object)->partitioner;
    Py_buffer block;
    Py_ssize_t start;
    long long sequence = -1;
    if (!PyArg_ParseTuple(arguments, "y*n|L:add_rows", &block, &start, &sequence)) {
        return NULL;
    }
    size_t at = (size_t)start;
    uint32_t full = 0;
    int64_t number = sequence < 0 ? -1 : sequence;
    const enum em_walk walk =
        is_within(start, &block)
            ? em_partition_rows(partitioner, block.buf, (size_t)block.len, &at, &number, &full)
            : EM_WALK_DAMAGED;
    PyBuffer_Release(&block);
    if (walk == EM_WALK_DAMAGED) {
        return no_rows();
    }
    return Py_BuildValue("(niL)", (Py_ssize_t)at, walk == EM_WALK_FULL ? (int)full : -1,
                         (long long)number);
}

static PyObject *partitioner_add_whole(PyObject *object, PyObject *arguments) {
    em_partitioner *partitioner = &((partitioner_object *)object)->partitioner;
    Py_buffer block;
    Py_ssize_t at;
    long long sequence = -1;
    if (!PyArg_ParseTuple(arguments, "y*n|L:add_whole", &block, &at, &sequence)) {
        return NULL;
    }
    const uint8_t *row = is_within(at, &block)
                             ? em_spilled_row_at(block.buf, (size_t)block.len, (size_t)at, false)
                             : NULL;
    size_t bytes = 0;
    bool empty = true;
    for (uint32_t i = 0; i <= partitioner->fan_out; i++) {
        empty &= partitioner->used[i] == 0;
    }
    if (row == NULL || !empty) {
        no_rows();
    } else {
        bytes = em_partition_whole(partitioner, row, sequence < 0 ? -1 : sequence);
    }
    const size_t next = (size_t)at + (row == NULL ? 0 : em_row_bytes(row));
    PyBuffer_Release(&block);
    return row == NULL || !empty ? NULL
                                 : Py_BuildValue("(nn)", (Py_ssize_t)next, (Py_ssize_t)bytes);
}

static int check_partition(const em_partitioner *partitioner, Py_ssize_t number) {
    if (number >= 0 && number <= (Py_ssize_t)partitioner->fan_out) {
        return 0;
    }
    PyErr_Format(PyExc_ValueError, "no partition %zd of %u", number, partitioner->fan_out);
    return -1;
}

static PyObject *partitioner_pop(PyObject *object, PyObject *argument) {
    em_partitioner *partitioner = &((partitioner_object *)object)->partitioner;
    const Py_ssize_t number = PyLong_AsSsize_t(argument);
    if (PyErr_Occurred() || check_partition(partitioner, number) < 0) {
        return NULL;
    }
    const Py_ssize_t start = (Py_ssize_t)((size_t)number * partitioner->buffer_bytes);
    const Py_ssize_t stop = start + (Py_ssize_t)partitioner->used[number];
    const Py_ssize_t rows = (Py_ssize_t)partitioner->rows[number];
    partitioner->used[number] = partitioner->rows[number] = 0;
    return Py_BuildValue("(nnn)", start, stop, rows);
}

static PyMethodDef partitioner_methods[] = {
    {"add_rows", partitioner_add, METH_VARARGS,
     "add_rows($self, block, at, sequence=-1, /)\n--\n\nPartition rows from `at` on: (next at, the "
     "full partition or -1, next sequence)."},
    {"add_whole", partitioner_add_whole, METH_VARARGS,
     "add_whole($self, block, at, sequence=-1, /)\n--\n\nStore one row at the start of the memory: "
     "(next at, bytes); 0 bytes when it does not fit."},
    {"pop", partitioner_pop, METH_O,
     "pop($self, partition, /)\n--\n\nEmpty a partition, and return where its rows are: (start, "
     "stop, rows)."},
    {NULL, NULL, 0, NULL},
};
static PyType_Slot partitioner_slots[] = {
    {Py_tp_doc, "Partitioner(memory, fan_out, level, /, *, bounds=None, key_filter=None, "
                "fills=False)\n--\n\nPartitions rows by the hash of their keys; see partition.h."},
    {Py_tp_new, partitioner_new},
    {Py_tp_dealloc, partitioner_dealloc},
    {Py_tp_methods, partitioner_methods},
    {0, NULL},
};
static PyType_Spec partitioner_spec = {
    .name = "emsqrt._kernel.Partitioner",
    .basicsize = sizeof(partitioner_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = partitioner_slots,
};

int partition_register(PyObject *module) {
    PyObject *type = PyType_FromSpec(&partitioner_spec);
    const int done = type == NULL ? -1 : PyModule_AddObjectRef(module, "Partitioner", type);
    Py_XDECREF(type);
    return done;
}
