/* xxh3_64, lz4_bound, lz4_compress, lz4_decompress: codecs over buffers. */
#include "native.h"

#include "lz4.h"
#include "xxh3.h"

/* The GIL is released while a loop runs over at least this many bytes. */
enum { RELEASE_BYTES_MIN = 32 << 10 };

static PyThreadState *release_for(Py_ssize_t bytes) {
    return bytes >= RELEASE_BYTES_MIN ? PyEval_SaveThread() : NULL;
}

static void reacquire(PyThreadState *state) {
    if (state != NULL) {
        PyEval_RestoreThread(state);
    }
}

static PyObject *hash_bytes(PyObject *module, PyObject *arguments, PyObject *names) {
    (void)module;
    static char *keywords[] = {"buffer", "seed", NULL};
    Py_buffer data;
    PyObject *seed_object = NULL;
    if (!PyArg_ParseTupleAndKeywords(arguments, names, "y*|O:xxh3_64", keywords, &data,
                                     &seed_object)) {
        return NULL;
    }
    const uint64_t seed = seed_object == NULL ? 0 : PyLong_AsUnsignedLongLong(seed_object);
    if (PyErr_Occurred()) {
        PyBuffer_Release(&data);
        return NULL;
    }
    PyThreadState *state = release_for(data.len);
    const uint64_t hash = em_xxh3(data.buf, (size_t)data.len, seed);
    reacquire(state);
    PyBuffer_Release(&data);
    return PyLong_FromUnsignedLongLong(hash);
}

static PyObject *lz4_bound(PyObject *module, PyObject *bytes) {
    (void)module;
    const size_t count = PyLong_AsSize_t(bytes);
    if (PyErr_Occurred()) {
        return NULL;
    }
    if (count > EM_LZ4_BYTES_MAX) {
        return PyErr_Format(PyExc_ValueError, "a block of LZ4 has at most %zu bytes, not %zu",
                            EM_LZ4_BYTES_MAX, count);
    }
    return PyLong_FromSize_t(em_lz4_bound(count));
}

/* Parse (source, target), which must not overlap: the loops copy without checking for it. */
static int parse_pair(PyObject *arguments, Py_buffer *source, Py_buffer *target) {
    if (!PyArg_ParseTuple(arguments, "y*w*", source, target)) {
        return -1;
    }
    const uint8_t *from = source->buf, *to = target->buf;
    if (from < to + target->len && to < from + source->len) {
        PyBuffer_Release(source);
        PyBuffer_Release(target);
        PyErr_SetString(PyExc_ValueError, "source and target overlap");
        return -1;
    }
    return 0;
}

static PyObject *lz4_compress(PyObject *module, PyObject *arguments) {
    (void)module;
    Py_buffer source, target;
    if (parse_pair(arguments, &source, &target) < 0) {
        return NULL;
    }
    PyThreadState *state = release_for(source.len);
    const size_t made =
        em_lz4_compress(source.buf, (size_t)source.len, target.buf, (size_t)target.len);
    reacquire(state);
    PyBuffer_Release(&source);
    PyBuffer_Release(&target);
    return PyLong_FromSize_t(made);
}

static PyObject *lz4_decompress(PyObject *module, PyObject *arguments) {
    (void)module;
    Py_buffer source, target;
    if (parse_pair(arguments, &source, &target) < 0) {
        return NULL;
    }
    PyThreadState *state = release_for(target.len);
    const ptrdiff_t made =
        em_lz4_decompress(source.buf, (size_t)source.len, target.buf, (size_t)target.len);
    reacquire(state);
    PyBuffer_Release(&source);
    PyBuffer_Release(&target);
    if (made < 0) {
        PyErr_SetString(PyExc_ValueError, "the source is not an LZ4 block that fits the target");
        return NULL;
    }
    return PyLong_FromSsize_t(made);
}

static PyMethodDef functions[] = {
    {"xxh3_64", (PyCFunction)(void (*)(void))hash_bytes, METH_VARARGS | METH_KEYWORDS,
     "xxh3_64($module, buffer, seed=0)\n--\n\nHash a buffer to 64 bits with "
     "XXH3."},
    {"lz4_bound", lz4_bound, METH_O,
     "lz4_bound($module, bytes, /)\n--\n\nReturn the most bytes that compressing this many bytes "
     "can produce."},
    {"lz4_compress", lz4_compress, METH_VARARGS,
     "lz4_compress($module, source, target, /)\n--\n\nCompress to one LZ4 block; return its bytes, "
     "or 0 when the target is too small."},
    {"lz4_decompress", lz4_decompress, METH_VARARGS,
     "lz4_decompress($module, source, target, /)\n--\n\nDecompress one LZ4 block; return the bytes "
     "written. ValueError when it is damaged or does not fit."},
    {NULL, NULL, 0, NULL},
};

int codec_register(PyObject *module) {
    return PyModule_AddFunctions(module, functions);
}
