/* MergeJoiner, key_run, sorted_run and mark_matched: joins of two sorted inputs. */
#include "bind_join.h"

#include "merge_join.h"

typedef struct {
    PyObject ob_base;
    em_merge_join merge;
} joiner_object;

static void joiner_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

static PyObject *joiner_new(PyTypeObject *type, PyObject *arguments, PyObject *names) {
    (void)names;
    unsigned flags;
    if (!PyArg_ParseTuple(arguments, "I:MergeJoiner", &flags)) {
        return NULL;
    }
    const allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    joiner_object *self = (joiner_object *)allocate(type, 0);
    if (self != NULL) {
        self->merge.flags = flags;
        self->merge.left_last = self->merge.right_last = SIZE_MAX;
    }
    return (PyObject *)self;
}

static PyObject *joiner_run(PyObject *object, PyObject *arguments) {
    em_merge_join *merge = &((joiner_object *)object)->merge;
    Py_buffer left, right, out, rest;
    int ended;
    if (!PyArg_ParseTuple(arguments, "y*y*w*w*p:run", &left, &right, &out, &rest, &ended)) {
        return NULL;
    }
    em_join_output joined = {out.buf, (size_t)out.len, 0, 0};
    em_join_output kept = {rest.buf, (size_t)rest.len, 0, 0};
    enum em_merge_stop stop = EM_MERGE_DAMAGED;
    const size_t left_size = (size_t)left.len, right_size = (size_t)right.len;
    if (merge->left_at <= left_size && merge->right_at <= right_size &&
        merge->group_end <= right_size) {
        merge->right_ended = ended != 0;
        stop =
            em_merge_join_rows(merge, left.buf, left_size, right.buf, right_size, &joined, &kept);
    }
    PyBuffer_Release(&left);
    PyBuffer_Release(&right);
    PyBuffer_Release(&out);
    PyBuffer_Release(&rest);
    if (stop == EM_MERGE_DAMAGED) {
        return no_rows();
    }
    return Py_BuildValue("(innnn)", (int)stop, (Py_ssize_t)joined.used, (Py_ssize_t)joined.rows,
                         (Py_ssize_t)kept.used, (Py_ssize_t)kept.rows);
}

static PyObject *joiner_next_left(PyObject *object, PyObject *none) {
    (void)none;
    em_merge_join *merge = &((joiner_object *)object)->merge;
    merge->left_at = 0;
    merge->left_last = SIZE_MAX;
    Py_RETURN_NONE;
}

static PyObject *joiner_moved(PyObject *object, PyObject *none) {
    (void)none;
    em_merge_join *merge = &((joiner_object *)object)->merge;
    merge->group_end -= merge->group_end < merge->right_at ? merge->group_end : merge->right_at;
    merge->right_at = 0;
    merge->right_last = SIZE_MAX;
    Py_RETURN_NONE;
}

static PyObject *joiner_skip_left(PyObject *object, PyObject *argument) {
    const size_t at = PyLong_AsSize_t(argument);
    if (PyErr_Occurred()) {
        return NULL;
    }
    em_merge_join *merge = &((joiner_object *)object)->merge;
    merge->left_at = at;
    merge->left_last = SIZE_MAX;
    Py_RETURN_NONE;
}

static PyObject *place(size_t at) {
    return at == SIZE_MAX ? PyLong_FromLong(-1) : PyLong_FromSize_t(at);
}

static PyObject *get_left_at(PyObject *object, void *none) {
    (void)none;
    return place(((joiner_object *)object)->merge.left_at);
}

static PyObject *get_right_at(PyObject *object, void *none) {
    (void)none;
    return place(((joiner_object *)object)->merge.right_at);
}

static PyObject *get_group_end(PyObject *object, void *none) {
    (void)none;
    return place(((joiner_object *)object)->merge.group_end);
}

static PyObject *get_left_last(PyObject *object, void *none) {
    (void)none;
    return place(((joiner_object *)object)->merge.left_last);
}

static PyObject *get_right_last(PyObject *object, void *none) {
    (void)none;
    return place(((joiner_object *)object)->merge.right_last);
}

static PyMethodDef joiner_methods[] = {
    {"run", joiner_run, METH_VARARGS,
     "run($self, left, right, out, rest, right_ended, /)\n--\n\nContinue: (why it stopped, bytes "
     "and rows in `out`, bytes and rows in `rest`)."},
    {"next_left", joiner_next_left, METH_NOARGS,
     "next_left($self, /)\n--\n\nAnnounce that the next call has the next left block."},
    {"moved", joiner_moved, METH_NOARGS,
     "moved($self, /)\n--\n\nAnnounce that the right rows from `right_at` on were moved to the "
     "block's start."},
    {"skip_left", joiner_skip_left, METH_O,
     "skip_left($self, at, /)\n--\n\nContinue at byte `at` of the left block."},
    {NULL, NULL, 0, NULL},
};
static PyGetSetDef joiner_fields[] = {
    {"left_at", get_left_at, NULL, "The next left row.", NULL},
    {"right_at", get_right_at, NULL, "The next right row.", NULL},
    {"group_end", get_group_end, NULL, "The end of the right rows that matched last.", NULL},
    {"left_last", get_left_last, NULL, "The keyed left row before `left_at`, or -1.", NULL},
    {"right_last", get_right_last, NULL, "The keyed right row before `right_at`, or -1.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
static PyType_Slot joiner_slots[] = {
    {Py_tp_doc, "MergeJoiner(flags)\n--\n\nJoins two sorted inputs; see merge_join.h."},
    {Py_tp_new, joiner_new},
    {Py_tp_dealloc, joiner_dealloc},
    {Py_tp_methods, joiner_methods},
    {Py_tp_getset, joiner_fields},
    {0, NULL},
};
static PyType_Spec joiner_spec = {
    .name = "emsqrt._kernel.MergeJoiner",
    .basicsize = sizeof(joiner_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = joiner_slots,
};

static PyObject *key_run(PyObject *module, PyObject *arguments) {
    (void)module;
    Py_buffer block, key;
    Py_ssize_t at;
    if (!PyArg_ParseTuple(arguments, "y*ny*:key_run", &block, &at, &key)) {
        return NULL;
    }
    const size_t end = is_within(at, &block) ? em_key_run(block.buf, (size_t)block.len, (size_t)at,
                                                          key.buf, (uint32_t)key.len)
                                             : SIZE_MAX;
    PyBuffer_Release(&block);
    PyBuffer_Release(&key);
    return end == SIZE_MAX ? no_rows() : PyLong_FromSize_t(end);
}

static PyObject *sorted_run(PyObject *module, PyObject *arguments) {
    (void)module;
    Py_buffer block, key;
    Py_ssize_t at, limit;
    if (!PyArg_ParseTuple(arguments, "y*nny*:sorted_run", &block, &at, &limit, &key)) {
        return NULL;
    }
    size_t rows = 0, last = 0;
    const size_t end = is_within(at, &block) && limit >= 0
                           ? em_sorted_run(block.buf, (size_t)block.len, (size_t)at, (size_t)limit,
                                           key.buf, (uint32_t)key.len, &rows, &last)
                           : SIZE_MAX;
    PyBuffer_Release(&block);
    PyBuffer_Release(&key);
    return end == SIZE_MAX
               ? no_rows()
               : Py_BuildValue("(nnn)", (Py_ssize_t)end, (Py_ssize_t)rows, (Py_ssize_t)last);
}

static PyObject *mark_matched(PyObject *module, PyObject *arguments) {
    (void)module;
    Py_buffer block, rest, last;
    Py_ssize_t start, rest_start;
    int ended;
    if (!PyArg_ParseTuple(arguments, "w*ny*npy*:mark_matched", &block, &start, &rest, &rest_start,
                          &ended, &last)) {
        return NULL;
    }
    size_t at = (size_t)start, rest_at = (size_t)rest_start;
    const enum em_walk walk =
        is_within(start, &block) && is_within(rest_start, &rest)
            ? em_mark_matched(block.buf, (size_t)block.len, &at, rest.buf, (size_t)rest.len,
                              &rest_at, ended != 0, last.buf, (uint32_t)last.len)
            : EM_WALK_DAMAGED;
    PyBuffer_Release(&block);
    PyBuffer_Release(&rest);
    PyBuffer_Release(&last);
    return walk == EM_WALK_DAMAGED ? no_rows()
                                   : Py_BuildValue("(nnO)", (Py_ssize_t)at, (Py_ssize_t)rest_at,
                                                   walk == EM_WALK_FULL ? Py_True : Py_False);
}

static PyMethodDef functions[] = {
    {"key_run", key_run, METH_VARARGS,
     "key_run($module, block, at, key, /)\n--\n\nReturn the end of the rows with this key that "
     "start at `at`."},
    {"sorted_run", sorted_run, METH_VARARGS,
     "sorted_run($module, block, at, limit, key, /)\n--\n\nFind the rows from `at` on whose keys "
     "ascend from this key: (end, rows, offset of the last)."},
    {"mark_matched", mark_matched, METH_VARARGS,
     "mark_matched($module, block, at, rest, rest_at, rest_ended, last, /)\n--\n\nMark rows up to "
     "this key that are not in `rest`: (next at, next in `rest`, whether a greater key came)."},
    {NULL, NULL, 0, NULL},
};

int merge_join_register(PyObject *module) {
    PyObject *type = PyType_FromSpec(&joiner_spec);
    const bool failed = type == NULL || PyModule_AddObjectRef(module, "MergeJoiner", type) < 0 ||
                        PyModule_AddFunctions(module, functions) < 0;
    Py_XDECREF(type);
    return failed ? -1 : 0;
}
