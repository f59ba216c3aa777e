/* Sleep on the bells of several rings at once, and ring one of them. */
#include <stdatomic.h>
#include <string.h>

#include "_native.h"

enum { BELLS_MAX = 4096 }; /* bounds the allocations; the kernel waits for 128 at most */

/* Get the buffer of a bell: a writable, aligned u32. */
static int get_bell(PyObject *object, Py_buffer *bell) {
    if (PyObject_GetBuffer(object, bell, PyBUF_WRITABLE) < 0)
        return -1;
    if (bell->len == 4 && (uintptr_t)bell->buf % 4 == 0) /* what futex requires */
        return 0;
    PyBuffer_Release(bell);
    PyErr_SetString(PyExc_ValueError, "a bell is four aligned bytes");
    return -1;
}

static PyObject *list_rung(void *const *words, const uint32_t *seen, Py_ssize_t count) {
    PyObject *rung = PyList_New(0);
    for (Py_ssize_t i = 0; rung != NULL && i < count; i++) {
        const _Atomic uint32_t *word = words[i];
        /* acquire, pairs with the release increment in strand_ring_bell: the caller then sees the
         * counter for which the bell was rung */
        if (atomic_load_explicit(word, memory_order_acquire) == seen[i])
            continue;
        PyObject *index = PyLong_FromSsize_t(i);
        if (index == NULL || PyList_Append(rung, index) < 0)
            Py_CLEAR(rung);
        Py_XDECREF(index);
    }
    return rung;
}

PyObject *native_nap_any(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *objects, *numbers;
    unsigned long long nap_nanoseconds;
    if (!PyArg_ParseTuple(args, "O!O!K", &PyList_Type, &objects, &PyList_Type, &numbers,
                          &nap_nanoseconds))
        return NULL;
    const Py_ssize_t count = PyList_Size(objects);
    if (count == 0 || count > BELLS_MAX || PyList_Size(numbers) != count) {
        PyErr_SetString(PyExc_ValueError, "pass 1 to 4096 bells, and one number for each");
        return NULL;
    }
    Py_buffer *bells = PyMem_Calloc((size_t)count, sizeof *bells);
    void **words = PyMem_Calloc((size_t)count, sizeof *words);
    uint32_t *seen = PyMem_Calloc((size_t)count, sizeof *seen);
    PyObject *rung = NULL;
    Py_ssize_t held = 0;
    if (bells == NULL || words == NULL || seen == NULL)
        PyErr_NoMemory();
    while (!PyErr_Occurred() && held < count) {
        if (get_bell(PyList_GetItem(objects, held), &bells[held]) < 0)
            break;
        words[held] = bells[held].buf;
        seen[held] = (uint32_t)PyLong_AsUnsignedLongMask(PyList_GetItem(numbers, held));
        held++;
    }
    if (!PyErr_Occurred()) {
        Py_BEGIN_ALLOW_THREADS;
        strand_nap_any(words, seen, (size_t)count, nap_nanoseconds);
        Py_END_ALLOW_THREADS;
        rung = PyErr_CheckSignals() < 0 ? NULL : list_rung(words, seen, count);
    }
    while (held-- > 0)
        PyBuffer_Release(&bells[held]);
    PyMem_Free(bells);
    PyMem_Free(words);
    PyMem_Free(seen);
    return rung;
}

PyObject *native_ring_bell(PyObject *Py_UNUSED(module), PyObject *object) {
    Py_buffer bell;
    if (get_bell(object, &bell) < 0)
        return NULL;
    strand_wake_any(bell.buf);
    PyBuffer_Release(&bell);
    Py_RETURN_NONE;
}
