/* Bind the buffers of numpy and Arrow columns for the loops in _scatter.c and _gather.c.
 *
 * columns.py and arrow.py have checked what each buffer contains; here it is checked that each is
 * as long as the loops need.
 */
#include <string.h>

#include "_columns.h"
#include "_native.h"

/* The buffers that are open during one call. */
typedef struct {
    Py_buffer *views;
    uint32_t held;
} held_buffers;

static void release_buffers(held_buffers *held) {
    while (held->held != 0)
        PyBuffer_Release(&held->views[--held->held]);
    PyMem_Free(held->views);
}

/* Open a buffer until the end of the call; NULL and an error set when that fails. */
static const Py_buffer *hold(held_buffers *held, PyObject *object, int flags) {
    Py_buffer *view = &held->views[held->held];
    if (PyObject_GetBuffer(object, view, flags) < 0)
        return NULL;
    held->held++;
    return view;
}

static strand_place place_of(const layout_object *layout, uint32_t at) {
    const strand_field *field = &layout->fields[at];
    strand_place place = {
        .offset = field->offset,
        .width = field->width,
        .null_bit = field->null_bit,
        .heap_align = field->heap ? field->heap_align : 0,
        .item_bytes = field_types[field->tag].item_bytes,
        .truth = field->kind == KIND_BOOLEAN,
        .text = is_text(field->kind),
    };
    if (field->kind == KIND_HANDLE && layout->intern != NULL) {
        const Py_ssize_t known = PySequence_Size(layout->intern);
        place.handles = known > 0 ? (uint64_t)known : 0;
        PyErr_Clear();
    }
    return place;
}

static int too_short(void) {
    PyErr_SetString(PyExc_ValueError, "a buffer is shorter than its column");
    return -1;
}

/* ---- scatter -------------------------------------------------------------------------------- */

/* Whether a buffer holds values as the field's slots do. */
static bool is_typed(const Py_buffer *view, const strand_field *field) {
    if (field->heap)
        return false;
    const char *formats = field->kind == KIND_BOOLEAN ? "?" : field_types[field->tag].formats;
    const char *code = view->format == NULL ? "B" : view->format;
    if (*code != '\0' && strchr("@=<^", *code) != NULL)
        code++;
    return view->ndim == 1 && view->itemsize == field->width && code[0] != '\0' &&
           code[1] == '\0' && strchr(formats, code[0]) != NULL;
}

/* Bind an array of exactly the field's type and the batch's length: 1; 0 for any other object. */
static int bind_array(held_buffers *held, PyObject *array, const strand_field *field, uint64_t rows,
                      strand_source *source) {
    const Py_buffer *view = hold(held, array, PyBUF_RECORDS_RO);
    if (view == NULL) {
        PyErr_Clear();
        return 0;
    }
    if (!is_typed(view, field) || (uint64_t)view->shape[0] != rows)
        return 0;
    source->values = view->buf;
    source->step = view->strides[0];
    return 1;
}

/* Bind a description (form, values, offsets, first, validity, first validity bit); -1 and an error.
 */
static int bind_described(held_buffers *held, PyObject *described, uint64_t rows,
                          strand_source *source) {
    int form;
    unsigned long long first, valid_bit;
    PyObject *values, *offsets, *validity;
    if (!PyArg_ParseTuple(described, "iOOKOK", &form, &values, &offsets, &first, &validity,
                          &valid_bit))
        return -1;
    source->form = (enum strand_form)form;
    const Py_buffer *view = values == Py_None ? NULL : hold(held, values, PyBUF_STRIDED_RO);
    if (view == NULL && values != Py_None)
        return -1;
    const uint64_t bytes = view == NULL ? 0 : (uint64_t)view->len;
    source->values = view == NULL ? NULL : view->buf;
    source->values_bytes = bytes;
    if (form == COLUMN_BITS) {
        source->first_bit = first;
        if (first + rows > bytes * 8)
            return too_short();
    } else if (form == COLUMN_FIXED) {
        const uint64_t width = source->place.width;
        if (view != NULL && (uint64_t)view->itemsize == width && view->ndim == 1) {
            source->step = view->strides[0]; /* an array; else bytes */
            source->values += (Py_ssize_t)first * source->step;
        } else {
            source->step = (ptrdiff_t)width;
            source->values += first * width;
        }
        if (first + rows > bytes / width)
            return too_short();
    } else {
        const uint64_t size = form == COLUMN_OFFSETS32 ? 4 : 8;
        const Py_buffer *ends = hold(held, offsets, PyBUF_SIMPLE);
        if (ends == NULL)
            return -1;
        if (first + rows + 1 > (uint64_t)ends->len / size)
            return too_short();
        source->offsets = (const unsigned char *)ends->buf + first * size;
    }
    if (validity == Py_None)
        return 0;
    const Py_buffer *bits = hold(held, validity, PyBUF_SIMPLE);
    if (bits == NULL)
        return -1;
    if (valid_bit + rows > (uint64_t)bits->len * 8)
        return too_short();
    source->valid = bits->buf;
    source->valid_bit = valid_bit;
    return 0;
}

/* The detail that `_fail` expects for an error of a batch. */
static PyObject *describe_fault(int result, uint64_t detail) {
    if (result == STRAND_CORRUPT)
        return PyObject_CallFunction(PyExc_ValueError, "s",
                                     "its offsets point outside of its data");
    if (result == COLUMN_HANDLE)
        return PyUnicode_FromFormat("handle %llu", (unsigned long long)detail);
    return PyLong_FromUnsignedLongLong(detail);
}

static PyObject *refuse(producer_object *self, int result, uint32_t field, uint64_t detail) {
    PyObject *fault = describe_fault(result, detail);
    if (fault == NULL)
        return NULL;
    int reason = result;
    if (result == STRAND_CORRUPT)
        reason = FAIL_VALUE; /* the batch is at fault, not the ring */
    else if (result == COLUMN_NULL)
        reason = FAIL_NULL;
    else if (result == COLUMN_HANDLE)
        reason = FAIL_INTERN;
    fail(self, reason, field == UINT32_MAX ? -1 : (Py_ssize_t)field, fault);
    Py_DECREF(fault);
    return NULL;
}

/* Write a batch whose buffers are open; return the number of rows. */
static PyObject *scatter(producer_object *self, const strand_batch *batch) {
    uint32_t field = UINT32_MAX;
    uint64_t detail = 0, done = 0;
    int result = strand_check_batch(&self->core, batch, &field, &detail);
    if (result != STRAND_OK)
        return refuse(self, result, field, detail);
    for (;;) {
        uint64_t threshold = 0;
        result = strand_scatter(&self->core, batch, &done, &threshold);
        if (result == STRAND_OK)
            return PyLong_FromUnsignedLongLong(done);
        if (result != STRAND_WAIT)
            return fail(self, result, -1, NULL);
        if (wait_for_room(self, threshold) < 0)
            return NULL;
    }
}

static PyObject *scatter_slots(producer_object *self, uint64_t rows, PyObject *slots) {
    Py_buffer view;
    if (PyObject_GetBuffer(slots, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    PyObject *answer = NULL;
    if ((uint64_t)view.len / self->layout->stride < rows || !self->layout->gapless)
        PyErr_SetString(PyExc_ValueError, "the buffer does not hold that many slots of this ring");
    else
        answer = scatter(self, &(strand_batch){.rows = rows, .slots = view.buf});
    PyBuffer_Release(&view);
    return answer;
}

/* Bind a source for each field: 1; 0 when one is an array of another type or length. */
static int bind_sources(producer_object *self, PyObject *columns, uint64_t rows, held_buffers *held,
                        strand_source *sources) {
    const layout_object *layout = self->layout;
    for (uint32_t at = 0; at < layout->count; at++) {
        PyObject *column = PyTuple_GetItem(columns, (Py_ssize_t)at);
        sources[at].place = place_of(layout, at);
        if (PyTuple_Check(column)) {
            if (bind_described(held, column, rows, &sources[at]) < 0)
                return -1;
        } else if (!bind_array(held, column, &layout->fields[at], rows, &sources[at])) {
            return 0;
        }
    }
    return 1;
}

static uint32_t bitmap_bytes(const layout_object *layout) {
    uint32_t bits = 0;
    for (uint32_t at = 0; at < layout->count; at++)
        bits += layout->fields[at].null_bit >= 0;
    return (bits + 7) / 8;
}

/* _scatter(rows, slots | tuple of columns): rows written, or None when a column is an array of
 * another type or length. */
PyObject *producer_scatter(producer_object *self, PyObject *args) {
    unsigned long long rows;
    PyObject *columns;
    if (!PyArg_ParseTuple(args, "KO", &rows, &columns))
        return NULL;
    if (!PyTuple_Check(columns))
        return scatter_slots(self, rows, columns);
    const layout_object *layout = self->layout;
    if (PyTuple_Size(columns) != (Py_ssize_t)layout->count) {
        PyErr_SetString(PyExc_ValueError, "one column for each field");
        return NULL;
    }
    held_buffers held = {PyMem_Calloc(3 * (size_t)layout->count, sizeof(Py_buffer)), 0};
    strand_source *sources = PyMem_Calloc(layout->count, sizeof *sources);
    PyObject *answer = NULL;
    if (held.views == NULL || sources == NULL) {
        PyErr_NoMemory();
    } else {
        const int bound = bind_sources(self, columns, rows, &held, sources);
        const strand_batch batch = {.rows = rows,
                                    .sources = sources,
                                    .count = layout->count,
                                    .bitmap_bytes = bitmap_bytes(layout),
                                    .gapless = layout->gapless};
        if (bound > 0)
            answer = scatter(self, &batch);
        else if (bound == 0)
            answer = Py_NewRef(Py_None);
    }
    release_buffers(&held);
    PyMem_Free(sources);
    return answer;
}

/* ---- gather --------------------------------------------------------------------------------- */

/* Whether all of [start, stop) may be read; an error is set when not. */
static bool is_readable(consumer_object *self, uint64_t start, uint64_t stop) {
    if (start > stop)
        fail_number(self, FAIL_RANGE, stop);
    else if (start != stop && !strand_readable(&self->core, start))
        fail_number(self, FAIL_RANGE, start);
    else if (start != stop && !strand_readable(&self->core, stop - 1))
        fail_number(self, FAIL_RANGE, stop - 1);
    else
        return true;
    return false;
}

static PyObject *refuse_slot(consumer_object *self, int result, uint32_t field, uint64_t detail) {
    PyObject *fault = result == COLUMN_TEXT ? PyUnicode_FromString("a string that is not UTF-8")
                                            : PyLong_FromUnsignedLongLong(detail);
    if (fault == NULL)
        return NULL;
    int reason = result;
    if (result == COLUMN_HANDLE)
        reason = FAIL_INTERN;
    else if (result == COLUMN_TEXT)
        reason = FAIL_TEXT;
    self->reading = UINT64_MAX;
    fail(self, reason, (Py_ssize_t)field, fault);
    Py_DECREF(fault);
    return NULL;
}

/* Open a writable buffer of at least `bytes`; None counts as an empty buffer. */
static int bind_output(held_buffers *held, PyObject *object, uint64_t bytes, unsigned char **room,
                       uint64_t *room_bytes) {
    const Py_buffer *view = object == Py_None ? NULL : hold(held, object, PyBUF_WRITABLE);
    if (view == NULL && object != Py_None)
        return -1;
    *room = view == NULL ? NULL : view->buf;
    *room_bytes = view == NULL ? 0 : (uint64_t)view->len;
    return *room_bytes < bytes ? too_short() : 0;
}

/* Bind a description (field, form, values, offsets, validity); -1 and an error set. */
static int bind_target(consumer_object *self, PyObject *described, uint64_t rows,
                       held_buffers *held, strand_target *target) {
    int form;
    unsigned int field;
    uint64_t size = 0;
    PyObject *values, *offsets, *validity;
    if (!PyArg_ParseTuple(described, "IiOOO", &field, &form, &values, &offsets, &validity))
        return -1;
    if (field >= self->layout->count || form < COLUMN_FIXED || form > COLUMN_OFFSETS32) {
        PyErr_SetString(PyExc_ValueError, "no such field or form");
        return -1;
    }
    target->place = place_of(self->layout, field);
    target->field = field;
    target->form = (enum strand_form)form;
    const bool heap = target->place.heap_align != 0;
    if (heap != (form == COLUMN_OFFSETS32)) {
        PyErr_SetString(PyExc_ValueError, "this form does not fit the field");
        return -1;
    }
    const uint64_t bits = (rows + 7) / 8;
    const uint64_t needed = form == COLUMN_BITS ? bits : heap ? 0 : rows * target->place.width;
    if (bind_output(held, values, needed, &target->values, &target->values_bytes) < 0 ||
        bind_output(held, offsets, heap ? (rows + 1) * 4 : 0, &target->offsets, &size) < 0 ||
        bind_output(held, validity, validity == Py_None ? 0 : bits, &target->valid, &size) < 0)
        return -1;
    if (target->values_bytes / target->place.item_bytes > INT32_MAX) {
        PyErr_SetString(PyExc_OverflowError, "more data than 32-bit offsets can address");
        return -1;
    }
    return 0;
}

/* The number of nulls in each target. */
static PyObject *count_nulls(const strand_target *targets, uint32_t count) {
    PyObject *counts = PyList_New(count);
    for (uint32_t at = 0; counts != NULL && at < count; at++) {
        PyObject *nulls = PyLong_FromUnsignedLongLong(targets[at].nulls);
        if (nulls == NULL)
            Py_CLEAR(counts);
        else
            PyList_SetItem(counts, at, nulls);
    }
    return counts;
}

/* _gather(start, stop, [(field, form, values, offsets, validity), …]): the null count of each. */
PyObject *consumer_gather(consumer_object *self, PyObject *args) {
    unsigned long long start, stop;
    PyObject *described;
    if (!PyArg_ParseTuple(args, "KKO!", &start, &stop, &PyList_Type, &described) ||
        !is_readable(self, start, stop))
        return NULL;
    const uint32_t count = (uint32_t)PyList_Size(described);
    held_buffers held = {PyMem_Calloc(3 * (size_t)count, sizeof(Py_buffer)), 0};
    strand_target *targets = PyMem_Calloc(count, sizeof *targets);
    PyObject *answer = NULL;
    bool bound = held.views != NULL && targets != NULL;
    if (!bound)
        PyErr_NoMemory();
    for (uint32_t at = 0; bound && at < count; at++)
        bound = bind_target(self, PyList_GetItem(described, at), stop - start, &held,
                            &targets[at]) == 0;
    if (bound) {
        uint32_t at = 0;
        const int result =
            strand_gather(&self->core.ring, start, stop - start, targets, count, &at);
        answer = result == STRAND_OK
                     ? count_nulls(targets, count)
                     : refuse_slot(self, result, targets[at].field, targets[at].detail);
    }
    release_buffers(&held);
    PyMem_Free(targets);
    return answer;
}

/* _payload_sizes(start, stop, [field, …]): bytes of all payloads of each. */
PyObject *consumer_payload_sizes(consumer_object *self, PyObject *args) {
    unsigned long long start, stop;
    PyObject *fields;
    if (!PyArg_ParseTuple(args, "KKO!", &start, &stop, &PyList_Type, &fields) ||
        !is_readable(self, start, stop))
        return NULL;
    const Py_ssize_t count = PyList_Size(fields);
    PyObject *sizes = PyList_New(count);
    for (Py_ssize_t i = 0; sizes != NULL && i < count; i++) {
        uint64_t at = 0, bytes = 0;
        int result = STRAND_OK;
        bool known = to_u64(PyList_GetItem(fields, i), &at) == 0;
        if (known && (at >= self->layout->count || !self->layout->fields[at].heap)) {
            PyErr_SetString(PyExc_ValueError, "not a heap field");
            known = false;
        }
        if (known) {
            const strand_place place = place_of(self->layout, (uint32_t)at);
            result = strand_payload_bytes(&self->core.ring, start, stop - start, &place, &bytes);
        }
        PyObject *size = NULL;
        if (result != STRAND_OK)
            refuse_slot(self, result, (uint32_t)at, bytes);
        else if (known)
            size = PyLong_FromUnsignedLongLong(bytes);
        if (size == NULL)
            Py_CLEAR(sizes);
        else
            PyList_SetItem(sizes, i, size);
    }
    return sizes;
}
