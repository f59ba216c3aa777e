/* watch_usage and keep_freed: the memory of this process, looked at and held on to. */
#include "native.h"

#include "usage.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif

static PyObject *watch_usage(PyObject *module, PyObject *arguments) {
    (void)module;
    int file, wake;
    em_watch watch;
    Py_buffer peak;
    unsigned long long charged_max, shmem_max, idle_min, near;
    if (!PyArg_ParseTuple(arguments, "iiw*KKKKiii:watch_usage", &file, &wake, &peak, &charged_max,
                          &shmem_max, &idle_min, &near, &watch.far_ms, &watch.near_ms,
                          &watch.looks_ms)) {
        return NULL;
    }
    if (peak.len != sizeof(em_peak) || (uintptr_t)peak.buf % sizeof(uint64_t) != 0) {
        PyBuffer_Release(&peak);
        PyErr_SetString(PyExc_ValueError, "watch_usage: three aligned numbers of 64 bits, please");
        return NULL;
    }
    watch.charged_max = charged_max;
    watch.shmem_max = shmem_max;
    watch.idle_min = idle_min;
    watch.near = near;
    em_usage use;
    Py_BEGIN_ALLOW_THREADS;
    use = em_usage_watch(file, wake, &watch, peak.buf);
    Py_END_ALLOW_THREADS;
    PyBuffer_Release(&peak);
    return Py_BuildValue("KKKKK", (unsigned long long)use.most, (unsigned long long)use.anon,
                         (unsigned long long)use.file, (unsigned long long)use.shmem,
                         (unsigned long long)use.data);
}

static PyObject *keep_freed(PyObject *module, PyObject *arguments) {
    (void)module;
    int heap_bytes, block_bytes;
    if (!PyArg_ParseTuple(arguments, "ii:keep_freed", &heap_bytes, &block_bytes)) {
        return NULL;
    }
#ifdef __GLIBC__
    const bool done =
        mallopt(M_TRIM_THRESHOLD, heap_bytes) && mallopt(M_MMAP_THRESHOLD, block_bytes);
#else
    const bool done = false;
#endif
    return PyBool_FromLong(done);
}

static PyMethodDef functions[] = {
    {"watch_usage", watch_usage, METH_VARARGS, NULL},
    {"keep_freed", keep_freed, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

int usage_register(PyObject *module) {
    return PyModule_AddFunctions(module, functions);
}
