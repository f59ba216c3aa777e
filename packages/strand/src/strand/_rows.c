/* Write records given as Python objects, one at a time or in batches. */
#include <string.h>

#include "_encoder.h"

/* Publish within a long batch, so that a consumer on another core reads while the rest is written.
 */
enum { PUBLISH_EVERY = 512 };

/* ---- records to tuples ---------------------------------------------------------------------- */

/* Raise for a mapping with more keys than known fields; the error names an unknown key. */
static PyObject *refuse_key(producer_object *self, PyObject *mapping) {
    PyObject *key, *value;
    Py_ssize_t at = 0;
    while (PyDict_Next(mapping, &at, &key, &value)) {
        Py_INCREF(key);
        const int known = PyDict_Contains(self->layout->index, key);
        if (known == 0)
            fail(self, FAIL_FIELD, -1, key);
        Py_DECREF(key);
        if (known != 1)
            return NULL;
    }
    return fail(self, FAIL_RECORD, -1, mapping);
}

static PyObject *tuple_from_dict(producer_object *self, PyObject *mapping) {
    const layout_object *layout = self->layout;
    Py_ssize_t found = 0;
    PyObject *record = PyTuple_New((Py_ssize_t)layout->count);
    for (uint32_t at = 0; record != NULL && at < layout->count; at++) {
        PyObject *value = PyDict_GetItemWithError(mapping, layout->fields[at].name);
        found += value != NULL;
        if (value == NULL && PyErr_Occurred())
            Py_CLEAR(record);
        else
            PyTuple_SetItem(record, (Py_ssize_t)at, Py_NewRef(value == NULL ? Py_None : value));
    }
    if (record != NULL && found < PyDict_Size(mapping)) {
        Py_DECREF(record);
        return refuse_key(self, mapping);
    }
    return record;
}

static int is_mapping(PyObject *record) {
    PyObject *module = PyImport_ImportModule("collections.abc");
    PyObject *type = module == NULL ? NULL : PyObject_GetAttrString(module, "Mapping");
    const int answer = type == NULL ? -1 : PyObject_IsInstance(record, type);
    Py_XDECREF(module);
    Py_XDECREF(type);
    return answer;
}

static PyObject *tuple_from_other(producer_object *self, PyObject *record) {
    const int mapping = is_mapping(record);
    if (mapping < 0)
        return NULL;
    if (mapping) {
        PyObject *copy = PyDict_New();
        PyObject *values = NULL;
        if (copy != NULL && PyDict_Update(copy, record) == 0)
            values = tuple_from_dict(self, copy);
        Py_XDECREF(copy);
        return values;
    }
    if (!PySequence_Check(record) || PyUnicode_Check(record) || PyBytes_Check(record) ||
        PyByteArray_Check(record))
        return fail(self, FAIL_RECORD, -1, record);
    return PySequence_Tuple(record);
}

/* Return a record as a tuple, so that its values cannot be replaced while they are encoded. */
static PyObject *as_tuple(producer_object *self, PyObject *record) {
    if (Py_IS_TYPE(record, &PyTuple_Type) || PyTuple_Check(record))
        return Py_NewRef(record);
    if (PyList_Check(record))
        return PyList_AsTuple(record);
    if (PyDict_CheckExact(record))
        return tuple_from_dict(self, record);
    return tuple_from_other(self, record);
}

/* ---- writing -------------------------------------------------------------------------------- */

static void write_pointer(const layout_object *layout, unsigned char *pointer, uint64_t offset,
                          uint32_t bytes) {
    if (layout->version == 5) {
        const uint32_t low = (uint32_t)offset;
        const uint16_t length = (uint16_t)bytes;
        memcpy(pointer, &low, sizeof low);
        memcpy(pointer + sizeof low, &length, sizeof length);
    } else {
        memcpy(pointer, &offset, sizeof offset);
        memcpy(pointer + sizeof offset, &bytes, sizeof bytes);
    }
}

/* Claim, copy and seal the encoded record. */
static int store(encoder *e) {
    producer_object *self = e->self;
    if (producer_closed(self)) /* closed by Python code of a value, such as an __index__ */
        return -1;
    unsigned char *slot = claim_one(self);
    if (slot == NULL)
        return -1;
    memcpy(slot, e->image, e->layout->stride);
    for (uint32_t i = 0; i < e->payload_count; i++) {
        const payload *part = &e->payloads[i];
        const strand_field *field = &e->layout->fields[part->at];
        uint64_t offset = 0;
        unsigned char *target =
            claim_payload(self, (uint64_t)part->bytes, field->heap_align, &offset);
        if (target == NULL) {
            strand_abandon(&self->core);
            return -1;
        }
        memcpy(target, part->start, (size_t)part->bytes);
        write_pointer(e->layout, slot + field->offset, offset, (uint32_t)part->bytes);
    }
    strand_seal(&self->core, 1);
    return 0;
}

static int write_record(encoder *e, PyObject *record) {
    PyObject *values = as_tuple(e->self, record);
    if (values == NULL)
        return -1;
    const int result = encode(e, values) < 0 ? -1 : store(e);
    release_payloads(e);
    Py_DECREF(values);
    return result;
}

PyObject *producer_write(producer_object *self, PyObject *record) {
    encoder e;
    if (encoder_init(&e, self) < 0)
        return NULL;
    const int result = write_record(&e, record);
    encoder_free(&e);
    if (result < 0)
        return NULL;
    strand_publish(&self->core);
    Py_RETURN_NONE;
}

/* ---- batches -------------------------------------------------------------------------------- */

/* The next record: a new reference, or NULL at the end and on an error. */
static PyObject *next_record(PyObject *records, PyObject *iterator, Py_ssize_t at) {
    if (iterator != NULL)
        return PyIter_Next(iterator);
    return at < PyList_Size(records) ? Py_NewRef(PyList_GetItem(records, at)) : NULL;
}

static int write_all(encoder *e, PyObject *records, PyObject *iterator, Py_ssize_t *count) {
    PyObject *record;
    while ((record = next_record(records, iterator, *count)) != NULL) {
        const int result = write_record(e, record);
        Py_DECREF(record);
        if (result < 0)
            return -1;
        if (++*count % PUBLISH_EVERY == 0)
            strand_publish(&e->self->core);
    }
    return PyErr_Occurred() ? -1 : 0;
}

PyObject *producer_write_record_batch(producer_object *self, PyObject *records) {
    PyObject *iterator = NULL;
    if (!PyList_Check(records) && (iterator = PyObject_GetIter(records)) == NULL)
        return NULL;
    encoder e;
    Py_ssize_t count = 0;
    int result = encoder_init(&e, self);
    if (result == 0) {
        result = write_all(&e, records, iterator, &count);
        encoder_free(&e);
    }
    Py_XDECREF(iterator);
    if (!self->closing) /* publish the records before an error, too */
        strand_publish(&self->core);
    return result < 0 ? NULL : PyLong_FromSsize_t(count);
}
