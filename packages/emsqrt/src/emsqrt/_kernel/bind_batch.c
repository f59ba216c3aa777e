#include "bind_batch.h"

#include <string.h>

enum { TEXT_SHOWN = 80, BYTES_SHOWN = 320 };

static PyObject *record_fault;

static int read_types(em_batch *batch, PyObject *types) {
    const Py_ssize_t count = PySequence_Size(types);
    if (count < 0) {
        return -1;
    }
    batch->columns = PyMem_Calloc((size_t)count + 1, sizeof *batch->columns);
    batch->views = PyMem_Calloc((size_t)count + 1, sizeof *batch->views);
    if (batch->columns == NULL || batch->views == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    batch->column_count = (size_t)count;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *item = PySequence_GetItem(types, i);
        const char *text = item == NULL ? NULL : PyUnicode_AsUTF8AndSize(item, NULL);
        const bool known = text != NULL && em_parse_type(text, &batch->columns[i].type);
        if (text != NULL && !known) {
            PyErr_Format(PyExc_ValueError, "no column is read as %s", text);
        }
        Py_XDECREF(item);
        if (!known) {
            return -1;
        }
    }
    return 0;
}

int batch_open(batch_memory *held, em_batch *batch, PyObject *memory, PyObject *types) {
    held->memory = PyMemoryView_FromObject(memory);
    if (held->memory == NULL) {
        return -1;
    }
    if (PyObject_GetBuffer(held->memory, &held->buffer, PyBUF_WRITABLE) < 0) {
        Py_CLEAR(held->memory);
        return -1;
    }
    batch->memory = held->buffer.buf;
    batch->memory_bytes = (size_t)held->buffer.len;
    return read_types(batch, types);
}

void batch_close(batch_memory *held, em_batch *batch) {
    Py_CLEAR(held->lent); /* the old Columns keep the memory and stay valid */
    if (held->memory != NULL) {
        PyBuffer_Release(&held->buffer);
        Py_CLEAR(held->memory);
    }
    PyMem_Free(batch->columns);
    PyMem_Free(batch->views);
    batch->columns = NULL;
    batch->views = NULL;
}

PyObject *batch_lend(batch_memory *held, em_batch *batch, Py_buffer *block, size_t next) {
    const em_columns view = em_batch_view(batch, block->buf);
    PyObject *lent = columns_over(&view, held->memory);
    columns_object *columns = (columns_object *)lent;
    if (lent != NULL) {
        columns->held = PyMem_Calloc(1, sizeof *columns->held);
        if (columns->held == NULL) {
            Py_CLEAR(lent);
            PyErr_NoMemory();
        }
    }
    if (lent == NULL) {
        PyBuffer_Release(block);
        return NULL;
    }
    columns->held[0] = *block;
    columns->held_count = 1;
    Py_INCREF(lent);
    held->lent = lent;
    return Py_BuildValue("NK", lent, (unsigned long long)next);
}

void batch_reclaim(batch_memory *held) {
    columns_object *columns = (columns_object *)held->lent;
    if (columns == NULL) {
        return;
    }
    columns->view.row_count = 0;
    columns->view.text = NULL;
    columns->view.lines = NULL;
    if (columns->held_count == 1) {
        columns->held_count = 0;
        PyBuffer_Release(&columns->held[0]);
    }
    Py_CLEAR(held->lent);
}

bool batch_is_read(const batch_memory *held) {
    return held->lent != NULL && ((columns_object *)held->lent)->readers > 0;
}

static int set_number(PyObject *object, const char *name, uint64_t value) {
    PyObject *number = PyLong_FromUnsignedLongLong(value);
    const int failed = number == NULL ? -1 : PyObject_SetAttrString(object, name, number);
    Py_XDECREF(number);
    return failed;
}

static PyObject *fault_text(const uint8_t *text, size_t size) {
    const size_t shown = size < BYTES_SHOWN ? size : BYTES_SHOWN;
    PyObject *whole = PyUnicode_DecodeUTF8((const char *)text, (Py_ssize_t)shown, "replace");
    PyObject *part = whole == NULL ? NULL : PyUnicode_Substring(whole, 0, TEXT_SHOWN);
    Py_XDECREF(whole);
    return part;
}

static const char *const reasons[] = {"sound", "ragged", "value", "encoding", "room", "syntax"};

int reading_policy(em_reading *reading, const char *text) {
    static const char *const names[] = {"fail", "null", "skip"};
    for (int i = 0; i < 3; i++) {
        if (strcmp(text, names[i]) == 0) {
            reading->policy = (enum em_policy)i;
            return 0;
        }
    }
    PyErr_Format(PyExc_ValueError, "on_error is fail, null or skip, not %s", text);
    return -1;
}

PyObject *reading_counter(const em_reading *reading, uintptr_t which) {
    const uint64_t counters[] = {reading->records, reading->nulled, reading->skipped};
    return PyLong_FromUnsignedLongLong(counters[which]);
}

PyObject *reading_skipped(const em_reading *reading) {
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list != NULL && i < reading->skipped_count; i++) {
        const em_fault *fault = &reading->skipped_now[i];
        PyObject *item = Py_BuildValue("IIns", fault->record.start, fault->record.size,
                                       (Py_ssize_t)fault->field, reasons[fault->reason]);
        if (item == NULL || PyList_Append(list, item) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(item);
    }
    return list;
}

const char *block_refused(const Py_buffer *block, Py_ssize_t start, bool busy) {
    if (start < 0 || start > block->len) {
        return "the start is outside the block";
    }
    if (block->len >= (Py_ssize_t)UINT32_MAX) {
        return "a block has less than 4 GiB";
    }
    return busy ? "another thread is parsing" : NULL;
}

void reading_raise(const em_reading *reading, const uint8_t *data) {
    const em_fault *fault = &reading->fault;
    const char *reason = reasons[fault->reason];
    const em_span record = fault->record;
    PyObject *shown = fault_text(data + fault->text.start, fault->text.size);
    PyObject *word = PyUnicode_FromString(reason);
    PyObject *message = shown == NULL
                            ? NULL
                            : PyUnicode_FromFormat("record %llu at byte %u: %s, field %zu: %R",
                                                   (unsigned long long)reading->records,
                                                   record.start, reason, fault->field, shown);
    PyObject *raised =
        message == NULL ? NULL : PyObject_CallFunctionObjArgs(record_fault, message, NULL);
    if (raised != NULL && word != NULL && set_number(raised, "offset", record.start) == 0 &&
        set_number(raised, "size", record.size) == 0 &&
        set_number(raised, "row", reading->records) == 0 &&
        set_number(raised, "field", fault->field) == 0 &&
        PyObject_SetAttrString(raised, "reason", word) == 0 &&
        PyObject_SetAttrString(raised, "text", shown) == 0) {
        PyErr_SetObject(record_fault, raised);
    }
    Py_XDECREF(shown);
    Py_XDECREF(word);
    Py_XDECREF(message);
    Py_XDECREF(raised);
}

int batch_register(PyObject *module) {
    record_fault = PyErr_NewExceptionWithDoc(
        "emsqrt._kernel.RecordFault",
        "A record that cannot be read; offset, size, row, field, reason and text say which.",
        PyExc_ValueError, NULL);
    return record_fault == NULL ? -1 : PyModule_AddObjectRef(module, "RecordFault", record_fault);
}
