/* Lease: read-only bytes of the ring, with a count of the buffers exported from them. */
#include "_native.h"

/* Exports its bytes read-only and counts the exports. The exporter has to count, because a slice of
 * a memoryview is not counted as an export of that memoryview (design/0012). */
typedef struct {
    PyObject ob_base;
    Py_buffer mapping; /* a reference of its own: the payload may outlive the consumer */
    unsigned char *start;
    Py_ssize_t bytes;
    Py_ssize_t exports;
    bool released;
} lease_object;

PyObject *make_lease(consumer_object *owner, uint64_t offset, uint64_t bytes) {
    lease_object *lease = (lease_object *)allocate((PyTypeObject *)owner->state->lease_type);
    if (lease == NULL)
        return NULL;
    if (PyObject_GetBuffer(owner->view.obj, &lease->mapping, PyBUF_SIMPLE) < 0) {
        Py_DECREF(lease);
        return NULL;
    }
    lease->start = owner->core.ring.base + offset;
    lease->bytes = (Py_ssize_t)bytes;
    return (PyObject *)lease;
}

static int lease_getbuffer(lease_object *self, Py_buffer *view, int flags) {
    if (self->released) {
        view->obj = NULL;
        PyErr_SetString(PyExc_BufferError, "this payload was acknowledged and may be overwritten");
        return -1;
    }
    if (PyBuffer_FillInfo(view, (PyObject *)self, self->start, self->bytes, 1, flags) < 0)
        return -1;
    self->exports++;
    return 0;
}

static void lease_releasebuffer(lease_object *self, Py_buffer *Py_UNUSED(view)) {
    self->exports--;
}

static void lease_dealloc(lease_object *self) {
    PyBuffer_Release(&self->mapping);
    free_object((PyObject *)self);
}

static PyObject *lease_release(lease_object *self, PyObject *Py_UNUSED(ignored)) {
    if (self->exports > 0)
        Py_RETURN_FALSE;
    self->released = true;
    Py_RETURN_TRUE;
}

static PyMethodDef lease_methods[] = {
    {"release", (PyCFunction)lease_release, METH_NOARGS,
     "End the lease; False while a buffer exported from it is still open."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot lease_slots[] = {
    {Py_tp_doc, "A payload in the ring, readable until it is released."},
    {Py_tp_dealloc, lease_dealloc},
    {Py_tp_methods, lease_methods},
    {Py_bf_getbuffer, lease_getbuffer},
    {Py_bf_releasebuffer, lease_releasebuffer},
    {0, NULL},
};

PyType_Spec lease_spec = {
    .name = "strand._native.Lease",
    .basicsize = sizeof(lease_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = lease_slots,
};
