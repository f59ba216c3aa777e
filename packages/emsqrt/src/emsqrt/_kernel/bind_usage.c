/* watch_usage, keep_freed, release_freed and seal_pages: the memory of this process: how much it
 * uses, and when it is returned. */
#include "native.h"

#include "usage.h"

#include <sys/mman.h>

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
        PyErr_SetString(PyExc_ValueError, "peak must be four aligned 64-bit numbers");
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

static PyObject *release_freed(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
#ifdef __GLIBC__
    const bool done = malloc_trim(0) != 0;
#else
    const bool done = false;
#endif
    return PyBool_FromLong(done);
}

static PyObject *seal_pages(PyObject *module, PyObject *memory) {
    (void)module;
    Py_buffer pages;
    if (PyObject_GetBuffer(memory, &pages, PyBUF_WRITABLE) < 0) {
        return NULL;
    }
    /* RLIMIT_DATA counts private writable mappings (vm_stat_account in mm/mmap.c), used or not; a
     * read-only one is not counted, even while references to it exist. */
    const bool sealed = mprotect(pages.buf, (size_t)pages.len, PROT_READ) == 0;
    PyBuffer_Release(&pages);
    return PyBool_FromLong(sealed);
}

static PyMethodDef functions[] = {
    {"watch_usage", watch_usage, METH_VARARGS, NULL},
    {"keep_freed", keep_freed, METH_VARARGS, NULL},
    {"release_freed", release_freed, METH_NOARGS,
     "release_freed($module, /)\n--\n\nReturn whole pages of freed memory to the system, also "
     "those between blocks in use.\n\nReturns whether there were any."},
    {"seal_pages", seal_pages, METH_O,
     "seal_pages($module, memory, /)\n--\n\nMake a whole mapping read-only: its addresses no "
     "longer count against RLIMIT_DATA.\n\nReturns False when the system refuses."},
    {NULL, NULL, 0, NULL},
};

int usage_register(PyObject *module) {
    return PyModule_AddFunctions(module, functions);
}
