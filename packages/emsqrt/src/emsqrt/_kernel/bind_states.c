/* StateCombiner and GroupFold: combine sorted rows of states into fewer rows. */
#include "bind_aggregate.h"

#include "fold.h"

typedef struct {
    PyObject ob_base;
    Py_buffer memory;
    em_combiner combiner;
} combiner_object;

static void combiner_dealloc(PyObject *object) {
    combiner_object *self = (combiner_object *)object;
    if (self->memory.obj != NULL) {
        PyBuffer_Release(&self->memory);
    }
    release_parts(&self->combiner.layout);
    free_object(object);
}

static PyObject *too_small(PyObject *object, Py_ssize_t bytes) {
    PyErr_Format(PyExc_ValueError, "%zd bytes are too few for these states", bytes);
    Py_DECREF(object);
    return NULL;
}

static PyObject *combiner_new(PyTypeObject *type, PyObject *arguments, PyObject *names) {
    (void)names;
    PyObject *memory, *parts;
    if (!PyArg_ParseTuple(arguments, "OO:StateCombiner", &memory, &parts)) {
        return NULL;
    }
    combiner_object *self = new_object(type);
    if (self == NULL || PyObject_GetBuffer(memory, &self->memory, PyBUF_WRITABLE) < 0 ||
        parse_parts(parts, &self->combiner.layout) < 0) {
        Py_XDECREF((PyObject *)self);
        return NULL;
    }
    if (!em_combiner_open(&self->combiner, self->memory.buf, (size_t)self->memory.len)) {
        return too_small((PyObject *)self, self->memory.len);
    }
    return (PyObject *)self;
}

static em_progress run_combiner(void *state, const uint8_t *rows, size_t bytes, bool last,
                                uint8_t *out, size_t out_bytes) {
    return em_combiner_run(state, rows, bytes, last, out, out_bytes);
}

static PyObject *combiner_run(PyObject *object, PyObject *arguments) {
    em_combiner *combiner = &((combiner_object *)object)->combiner;
    return run_over(arguments, run_combiner, combiner, &combiner->fault);
}

static PyMethodDef combiner_methods[] = {
    {"run", combiner_run, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};
static PyType_Slot combiner_slots[] = {
    {Py_tp_doc,
     "StateCombiner(memory, parts)\n--\n\nCombines sorted rows with equal keys; see combine.h."},
    {Py_tp_new, combiner_new},
    {Py_tp_dealloc, combiner_dealloc},
    {Py_tp_methods, combiner_methods},
    {0, NULL},
};
static PyType_Spec combiner_spec = {
    .name = "emsqrt._kernel.StateCombiner",
    .basicsize = sizeof(combiner_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = combiner_slots,
};

typedef struct {
    PyObject ob_base;
    Py_buffer memory;
    parsed_keys keys;
    em_fold fold;
} fold_object;

static void fold_dealloc(PyObject *object) {
    fold_object *self = (fold_object *)object;
    if (self->memory.obj != NULL) {
        PyBuffer_Release(&self->memory);
    }
    release_keys(&self->keys);
    release_parts(&self->fold.layout);
    PyMem_Free(self->fold.quantiles);
    free_object(object);
}

/* Read (part, fraction), or (part, numerator, denominator) of a discrete quantile; -1 with an
 * exception set. */
static int parse_quantile(PyObject *source, const em_fold *fold, em_quantile *quantile) {
    const bool discrete = PyTuple_Check(source) && PyTuple_Size(source) == 3;
    unsigned long long numerator = 0, denominator = 1;
    double fraction = 0.0;
    int part;
    if (discrete
            ? !PyArg_ParseTuple(source, "iKK", &part, &numerator, &denominator)
            : !PyArg_ParseTuple(source, "id;a quantile is (part, fraction)", &part, &fraction)) {
        return -1;
    }
    if (part < 0 || (uint32_t)part >= fold->layout.count || fold->layout.parts[part].op != EM_MIN ||
        fold->layout.parts[part].column != EM_NO_COLUMN ||
        (!discrete && fold->layout.parts[part].kind != EM_F64) ||
        !(fraction >= 0.0 && fraction <= 1.0) || denominator == 0 || numerator > denominator) {
        PyErr_Format(PyExc_ValueError, "part %d cannot hold a quantile", part);
        return -1;
    }
    *quantile = (em_quantile){.part = (uint32_t)part,
                              .fraction = fraction,
                              .numerator = numerator,
                              .denominator = discrete ? denominator : 0};
    return 0;
}

static int parse_quantiles(PyObject *source, em_fold *fold) {
    PyObject *list = PySequence_List(source);
    if (list == NULL) {
        return -1;
    }
    fold->quantile_count = (size_t)PyList_Size(list);
    fold->quantiles = PyMem_Calloc(fold->quantile_count + 1, sizeof *fold->quantiles);
    bool failed = fold->quantiles == NULL;
    if (failed) {
        PyErr_NoMemory();
    }
    for (size_t i = 0; i < fold->quantile_count && !failed; i++) {
        PyObject *item = PyList_GetItem(list, (Py_ssize_t)i);
        failed = parse_quantile(item, fold, &fold->quantiles[i]) < 0;
    }
    Py_DECREF(list);
    return failed ? -1 : 0;
}

/* Check that the parts suit the value: text is only counted, or stored by a discrete quantile; next
 * to a discrete quantile no other part reads the value. */
static int check_fold(const em_fold *fold) {
    const enum em_kind kind = fold->keys.count > 0 ? fold->kinds[fold->keys.count - 1] : EM_TEXT;
    bool right = fold->keys.count > 0 && fold->keys.parts[fold->keys.count - 1].nulls_first;
    bool discrete = false;
    for (size_t i = 0; i < fold->quantile_count; i++) {
        const em_quantile *quantile = &fold->quantiles[i];
        discrete |= quantile->denominator > 0;
        right &= quantile->denominator > 0 ? fold->layout.parts[quantile->part].kind == kind
                                           : !em_is_text(kind);
    }
    for (uint32_t i = 0; i < fold->layout.count; i++) {
        const em_part *part = &fold->layout.parts[i];
        right &= part->op != EM_COUNT_ROWS && (!discrete || part->column == EM_NO_COLUMN);
        right &= part->column == EM_NO_COLUMN || part->op == EM_COUNT ||
                 (!em_is_text(kind) && part->kind == kind);
    }
    if (!right) {
        PyErr_SetString(PyExc_ValueError, "the parts of a fold do not suit its value");
        return -1;
    }
    return 0;
}

static PyObject *fold_new(PyTypeObject *type, PyObject *arguments, PyObject *names) {
    (void)names;
    PyObject *memory, *keys, *parts, *quantiles;
    int scale = 0;
    if (!PyArg_ParseTuple(arguments, "OOOO|i:GroupFold", &memory, &keys, &parts, &quantiles,
                          &scale)) {
        return NULL;
    }
    fold_object *self = new_object(type);
    if (self == NULL || PyObject_GetBuffer(memory, &self->memory, PyBUF_WRITABLE) < 0 ||
        parse_keys(keys, &self->keys) < 0 || parse_parts(parts, &self->fold.layout) < 0 ||
        parse_quantiles(quantiles, &self->fold) < 0) {
        Py_XDECREF((PyObject *)self);
        return NULL;
    }
    self->fold.keys = self->keys.spec;
    self->fold.kinds = self->keys.kinds;
    self->fold.scale = scale;
    if (check_fold(&self->fold) < 0) {
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    if (!em_fold_open(&self->fold, self->memory.buf, (size_t)self->memory.len)) {
        return too_small((PyObject *)self, self->memory.len);
    }
    return (PyObject *)self;
}

static em_progress run_fold(void *state, const uint8_t *rows, size_t bytes, bool last, uint8_t *out,
                            size_t out_bytes) {
    return em_fold_run(state, rows, bytes, last, out, out_bytes);
}

static PyObject *fold_run(PyObject *object, PyObject *arguments) {
    em_fold *fold = &((fold_object *)object)->fold;
    return run_over(arguments, run_fold, fold, &fold->fault);
}

static PyMethodDef fold_methods[] = {
    {"run", fold_run, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};
static PyType_Slot fold_slots[] = {
    {Py_tp_doc, "GroupFold(memory, keys, parts, quantiles, scale=0)\n--\n\nReduces the distinct "
                "values of groups to states; see fold.h."},
    {Py_tp_new, fold_new},
    {Py_tp_dealloc, fold_dealloc},
    {Py_tp_methods, fold_methods},
    {0, NULL},
};
static PyType_Spec fold_spec = {
    .name = "emsqrt._kernel.GroupFold",
    .basicsize = sizeof(fold_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = fold_slots,
};

static int add_type(PyObject *module, const char *name, PyType_Spec *spec) {
    PyObject *type = PyType_FromSpec(spec);
    const int added = type == NULL ? -1 : PyModule_AddObjectRef(module, name, type);
    Py_XDECREF(type);
    return added;
}

int states_register(PyObject *module) {
    return add_type(module, "StateCombiner", &combiner_spec) < 0
               ? -1
               : add_type(module, "GroupFold", &fold_spec);
}
