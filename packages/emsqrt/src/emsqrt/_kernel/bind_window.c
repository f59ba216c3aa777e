/* row_changes, FrameSum, FrameMinMax, RangeBound: windows over sorted rows. */
#include "bind_join.h"

#include "window.h"

/* Read the first column of `source`, which begins at row `first`; None is a chunk without rows. */
static int parse_chunk(PyObject *source, long long first, em_chunk *chunk) {
    *chunk = (em_chunk){.first = first};
    if (source == Py_None) {
        return 0;
    }
    const em_columns *columns = columns_view(source);
    if (columns == NULL) {
        return -1;
    }
    if (columns->column_count < 1 || first < 0) {
        PyErr_SetString(PyExc_ValueError, "a chunk needs a column and a first row of at least 0");
        return -1;
    }
    chunk->column = columns->columns[0];
    chunk->rows = columns->row_count;
    return 0;
}

static int check_kind(const em_chunk *chunk, enum em_kind kind) {
    if (chunk->rows == 0 || chunk->column.kind == kind) {
        return 0;
    }
    PyErr_Format(PyExc_ValueError, "a chunk of kind %d, not %d", (int)chunk->column.kind,
                 (int)kind);
    return -1;
}

/* Read frames from two buffers of int64; the first `row` of them are done. */
static int parse_frames(const Py_buffer *low, const Py_buffer *high, Py_ssize_t row,
                        em_frames *frames) {
    const bool aligned = (uintptr_t)low->buf % 8 == 0 && (uintptr_t)high->buf % 8 == 0;
    if (low->len != high->len || low->len % 8 != 0 || !aligned || row < 0 || row > low->len / 8) {
        PyErr_SetString(PyExc_ValueError, "frames need two bounds per row, as aligned int64");
        return -1;
    }
    *frames = (em_frames){low->buf, high->buf, (size_t)low->len / 8, (size_t)row};
    return 0;
}

static int check_room(const Py_buffer *out, size_t bytes) {
    if ((size_t)out->len >= bytes && (uintptr_t)out->buf % 8 == 0) {
        return 0;
    }
    PyErr_Format(PyExc_ValueError, "%zd bytes for results that need %zu", out->len, bytes);
    return -1;
}

static PyObject *stopped(size_t row, enum em_window_stop stop) {
    return Py_BuildValue("(ni)", (Py_ssize_t)row, (int)stop);
}

/* row_changes ------------------------------------------------------------------------------- */

static PyObject *row_changes(PyObject *module, PyObject *arguments) {
    (void)module;
    Py_buffer block, kinds, previous, flags;
    Py_ssize_t start;
    if (!PyArg_ParseTuple(arguments, "y*ny*y*w*:row_changes", &block, &start, &kinds, &previous,
                          &flags)) {
        return NULL;
    }
    bool sound = start >= 0 && start <= block.len;
    for (Py_ssize_t i = 0; i < kinds.len; i++) {
        sound &= ((const uint8_t *)kinds.buf)[i] < EM_KINDS;
    }
    const uint8_t *before = previous.len > 0 ? previous.buf : NULL;
    if (before != NULL) {
        sound &= previous.len >= (Py_ssize_t)EM_ROW_HEAD_BYTES &&
                 em_row_bytes(before) <= (size_t)previous.len &&
                 em_row_key_bytes(before) <= (size_t)previous.len - EM_ROW_HEAD_BYTES;
    }
    size_t last = SIZE_MAX;
    if (sound) {
        last = em_row_changes(block.buf, (size_t)block.len, (size_t)start, (size_t)flags.len,
                              kinds.buf, (size_t)kinds.len, before, flags.buf);
    }
    PyBuffer_Release(&block);
    PyBuffer_Release(&kinds);
    PyBuffer_Release(&previous);
    PyBuffer_Release(&flags);
    return last == SIZE_MAX ? no_rows() : PyLong_FromSize_t(last);
}

/* FrameSum ---------------------------------------------------------------------------------- */

typedef struct {
    PyObject ob_base;
    em_frame_sum sum;
} sum_object;

static void plain_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

static PyObject *sum_new(PyTypeObject *type, PyObject *arguments, PyObject *names) {
    (void)names;
    int op, kind, scale;
    if (!PyArg_ParseTuple(arguments, "iii:FrameSum", &op, &kind, &scale)) {
        return NULL;
    }
    const bool number = kind >= EM_I8 && kind <= EM_DECIMAL;
    if (op < EM_FRAME_COUNT || op > EM_FRAME_MEAN || kind < 0 || kind >= EM_KINDS || scale < -400 ||
        scale > 400 || (op != EM_FRAME_COUNT && !number)) {
        PyErr_SetString(PyExc_ValueError, "sums and means need numbers");
        return NULL;
    }
    const allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    sum_object *self = (sum_object *)allocate(type, 0);
    if (self != NULL) {
        self->sum.op = (enum em_frame_op)op;
        self->sum.kind = (enum em_kind)kind;
        self->sum.scale = scale;
        em_frame_sum_clear(&self->sum);
    }
    return (PyObject *)self;
}

static PyObject *sum_run(PyObject *object, PyObject *arguments) {
    em_frame_sum *sum = &((sum_object *)object)->sum;
    Py_buffer low, high, values, validity;
    PyObject *high_argument, *low_argument;
    Py_ssize_t row;
    long long high_first, low_first;
    if (!PyArg_ParseTuple(arguments, "y*y*nOLOLw*w*:run", &low, &high, &row, &high_argument,
                          &high_first, &low_argument, &low_first, &values, &validity)) {
        return NULL;
    }
    em_frames frames;
    em_chunk high_chunk, low_chunk;
    bool ready = parse_frames(&low, &high, row, &frames) == 0 &&
                 parse_chunk(high_argument, high_first, &high_chunk) == 0 &&
                 parse_chunk(low_argument, low_first, &low_chunk) == 0 &&
                 check_kind(&high_chunk, sum->kind) == 0 && check_kind(&low_chunk, sum->kind) == 0;
    if (ready) {
        const size_t width = sum->op == EM_FRAME_SUM && sum->kind == EM_DECIMAL ? 16 : 8;
        ready = check_room(&values, frames.rows * width) == 0 &&
                check_room(&validity, (frames.rows + 7) / 8) == 0;
    }
    enum em_window_stop stop = EM_WINDOW_DONE;
    if (ready) {
        const em_frame_out out = {values.buf, validity.buf};
        Py_BEGIN_ALLOW_THREADS;
        stop = em_frame_sum_run(sum, &frames, &high_chunk, &low_chunk, &out);
        Py_END_ALLOW_THREADS;
    }
    PyBuffer_Release(&low);
    PyBuffer_Release(&high);
    PyBuffer_Release(&values);
    PyBuffer_Release(&validity);
    return ready ? stopped(frames.row, stop) : NULL;
}

static PyObject *sum_bound(PyObject *object, void *which) {
    const em_frame_sum *sum = &((sum_object *)object)->sum;
    return PyLong_FromLongLong(which == NULL ? sum->low : sum->high);
}

static char high_mark;

static PyMethodDef sum_methods[] = {
    {"run", sum_run, METH_VARARGS,
     "run($self, low, high, row, high_chunk, high_first, low_chunk, low_first, values, validity, "
     "/)\n--\n\nWrite the results of frames from `row` on: (row, why it stopped)."},
    {NULL, NULL, 0, NULL},
};
static PyGetSetDef sum_properties[] = {
    {"low", sum_bound, NULL, "The first row of the frame.", NULL},
    {"high", sum_bound, NULL, "The row after the frame's last one.", &high_mark},
    {NULL, NULL, NULL, NULL, NULL},
};
static PyType_Slot sum_slots[] = {
    {Py_tp_doc,
     "FrameSum(op, kind, scale)\n--\n\nComputes counts, exact sums and means of frames."},
    {Py_tp_new, sum_new},
    {Py_tp_dealloc, plain_dealloc},
    {Py_tp_methods, sum_methods},
    {Py_tp_getset, sum_properties},
    {0, NULL},
};
static PyType_Spec sum_spec = {
    .name = "emsqrt._kernel.FrameSum",
    .basicsize = sizeof(sum_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = sum_slots,
};

/* FrameMinMax --------------------------------------------------------------------------------- */

typedef struct {
    PyObject ob_base;
    Py_buffer memory;
    em_frame_minmax minmax;
    enum em_kind kind;
} minmax_object;

static void minmax_dealloc(PyObject *object) {
    release_object(object, &((minmax_object *)object)->memory);
}

static PyObject *minmax_new(PyTypeObject *type, PyObject *arguments, PyObject *names) {
    (void)names;
    Py_buffer memory;
    int kind, greatest, sliding;
    if (!PyArg_ParseTuple(arguments, "w*ipp:FrameMinMax", &memory, &kind, &greatest, &sliding)) {
        return NULL;
    }
    const bool known = kind >= 0 && kind < EM_KINDS, text = known && em_is_text((enum em_kind)kind);
    const size_t bytes = (size_t)memory.len, queue_bytes = text ? bytes / 2 : bytes;
    const size_t room = queue_bytes / sizeof(em_candidate);
    const bool fits = known && (uintptr_t)memory.buf % 16 == 0 && room > 0 && bytes <= UINT32_MAX;
    const allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    minmax_object *self = fits ? (minmax_object *)allocate(type, 0) : NULL;
    if (!fits) {
        PyErr_SetString(PyExc_ValueError, "a queue needs a known kind and 64 aligned bytes");
    }
    if (self == NULL) {
        PyBuffer_Release(&memory);
        return NULL;
    }
    self->memory = memory;
    self->kind = (enum em_kind)kind;
    self->minmax = (em_frame_minmax){.greatest = greatest != 0,
                                     .sliding = sliding != 0,
                                     .text = text,
                                     .queue = memory.buf,
                                     .room = room,
                                     .bytes = (uint8_t *)memory.buf + room * sizeof(em_candidate),
                                     .bytes_room = text ? bytes - room * sizeof(em_candidate) : 0};
    return (PyObject *)self;
}

static PyObject *minmax_run(PyObject *object, PyObject *arguments) {
    minmax_object *self = (minmax_object *)object;
    Py_buffer low, high, out;
    PyObject *chunk_argument;
    Py_ssize_t row;
    long long first;
    if (!PyArg_ParseTuple(arguments, "y*y*nOLw*:run", &low, &high, &row, &chunk_argument, &first,
                          &out)) {
        return NULL;
    }
    em_frames frames;
    em_chunk chunk;
    const bool ready = parse_frames(&low, &high, row, &frames) == 0 &&
                       parse_chunk(chunk_argument, first, &chunk) == 0 &&
                       check_kind(&chunk, self->kind) == 0 &&
                       check_room(&out, frames.rows * sizeof(int64_t)) == 0;
    enum em_window_stop stop = EM_WINDOW_DONE;
    if (ready) {
        Py_BEGIN_ALLOW_THREADS;
        stop = em_frame_minmax_run(&self->minmax, &frames, &chunk, out.buf);
        Py_END_ALLOW_THREADS;
    }
    PyBuffer_Release(&low);
    PyBuffer_Release(&high);
    PyBuffer_Release(&out);
    return ready ? stopped(frames.row, stop) : NULL;
}

static PyObject *minmax_high(PyObject *object, void *which) {
    (void)which;
    return PyLong_FromLongLong(((minmax_object *)object)->minmax.high);
}

static PyMethodDef minmax_methods[] = {
    {"run", minmax_run, METH_VARARGS,
     "run($self, low, high, row, chunk, first, out, /)\n--\n\nWrite the best row of each frame "
     "from `row` on: (row, why it stopped)."},
    {NULL, NULL, 0, NULL},
};
static PyGetSetDef minmax_properties[] = {
    {"high", minmax_high, NULL, "The row after the frame's last one.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
static PyType_Slot minmax_slots[] = {
    {Py_tp_doc, "FrameMinMax(memory, kind, greatest, sliding)\n--\n\n"
                "Finds the row with the minimum or maximum of each frame."},
    {Py_tp_new, minmax_new},
    {Py_tp_dealloc, minmax_dealloc},
    {Py_tp_methods, minmax_methods},
    {Py_tp_getset, minmax_properties},
    {0, NULL},
};
static PyType_Spec minmax_spec = {
    .name = "emsqrt._kernel.FrameMinMax",
    .basicsize = sizeof(minmax_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = minmax_slots,
};

/* RangeBound -------------------------------------------------------------------------------- */

typedef struct {
    PyObject ob_base;
    em_range_bound bound;
} bound_object;

static PyObject *bound_new(PyTypeObject *type, PyObject *arguments, PyObject *names) {
    (void)names;
    long long offset;
    int is_end, descending, nulls_first;
    if (!PyArg_ParseTuple(arguments, "Lppp:RangeBound", &offset, &is_end, &descending,
                          &nulls_first)) {
        return NULL;
    }
    const allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    bound_object *self = (bound_object *)allocate(type, 0);
    if (self != NULL) {
        self->bound = (em_range_bound){is_end != 0, descending != 0, nulls_first != 0, offset, 0};
    }
    return (PyObject *)self;
}

static int check_keys(const em_chunk *chunk) {
    const bool whole = chunk->column.kind >= EM_I8 && chunk->column.kind <= EM_U64;
    if (chunk->rows == 0 || whole) {
        return 0;
    }
    PyErr_SetString(PyExc_ValueError, "RANGE frames need keys that are whole numbers");
    return -1;
}

static PyObject *bound_run(PyObject *object, PyObject *arguments) {
    em_range_bound *bound = &((bound_object *)object)->bound;
    PyObject *now_argument, *ahead_argument;
    Py_buffer partitions, flags, out;
    Py_ssize_t row;
    long long first;
    int last;
    if (!PyArg_ParseTuple(arguments, "Oy*nOy*Lpw*:run", &now_argument, &partitions, &row,
                          &ahead_argument, &flags, &first, &last, &out)) {
        return NULL;
    }
    em_chunk now;
    em_range_rows ahead = {.flags = flags.buf, .last = last != 0};
    bool ready = parse_chunk(now_argument, 0, &now) == 0 &&
                 parse_chunk(ahead_argument, first, &ahead.keys) == 0 && check_keys(&now) == 0 &&
                 check_keys(&ahead.keys) == 0 &&
                 check_room(&partitions, now.rows * sizeof(int64_t)) == 0 &&
                 check_room(&out, now.rows * sizeof(int64_t)) == 0;
    if (ready && (row < 0 || (size_t)flags.len < ahead.keys.rows)) {
        PyErr_SetString(PyExc_ValueError, "a flag is needed for each row");
        ready = false;
    }
    enum em_window_stop stop = EM_WINDOW_DONE;
    size_t at = (size_t)row;
    if (ready) {
        Py_BEGIN_ALLOW_THREADS;
        stop = em_range_bound_run(bound, &now, partitions.buf, &at, &ahead, out.buf);
        Py_END_ALLOW_THREADS;
    }
    PyBuffer_Release(&partitions);
    PyBuffer_Release(&flags);
    PyBuffer_Release(&out);
    return ready ? stopped(at, stop) : NULL;
}

static PyObject *bound_at(PyObject *object, void *which) {
    (void)which;
    return PyLong_FromLongLong(((bound_object *)object)->bound.at);
}

static PyMethodDef bound_methods[] = {
    {"run", bound_run, METH_VARARGS,
     "run($self, keys, partitions, row, ahead, flags, first, last, out, /)\n--\n\nWrite the bounds "
     "of frames from `row` on: (row, why it stopped)."},
    {NULL, NULL, 0, NULL},
};
static PyGetSetDef bound_properties[] = {
    {"at", bound_at, NULL, "The next row to compare.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
static PyType_Slot bound_slots[] = {
    {Py_tp_doc, "RangeBound(offset, is_end, descending, nulls_first)\n--\n\nFinds the rows where "
                "RANGE frames begin, or end."},
    {Py_tp_new, bound_new},
    {Py_tp_dealloc, plain_dealloc},
    {Py_tp_methods, bound_methods},
    {Py_tp_getset, bound_properties},
    {0, NULL},
};
static PyType_Spec bound_spec = {
    .name = "emsqrt._kernel.RangeBound",
    .basicsize = sizeof(bound_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = bound_slots,
};

static PyMethodDef functions[] = {
    {"row_changes", row_changes, METH_VARARGS,
     "row_changes($module, block, start, kinds, previous, flags, /)\n--\n\nFlag the rows at which "
     "peers and partitions of sorted rows begin."},
    {NULL, NULL, 0, NULL},
};

static int add_type(PyObject *module, const char *name, PyType_Spec *spec) {
    PyObject *type = PyType_FromSpec(spec);
    const int failed = type == NULL ? -1 : PyModule_AddObjectRef(module, name, type);
    Py_XDECREF(type);
    return failed;
}

int window_register(PyObject *module) {
    if (add_type(module, "FrameSum", &sum_spec) < 0 ||
        add_type(module, "FrameMinMax", &minmax_spec) < 0 ||
        add_type(module, "RangeBound", &bound_spec) < 0) {
        return -1;
    }
    return PyModule_AddFunctions(module, functions);
}
