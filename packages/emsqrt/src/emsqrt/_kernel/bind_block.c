/* write_block_head, read_block_head, open_block: blocks of spilled segments; and sync_range. */
#define _GNU_SOURCE
#include "native.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "block.h"
#include "xxh3.h"

/* The GIL is released while at least this many bytes are hashed. */
enum { RELEASE_BYTES_MIN = 32 << 10 };

static PyObject *write_head(PyObject *module, PyObject *arguments) {
    (void)module;
    Py_buffer head, stored;
    unsigned long long schema, segment, rows;
    unsigned int number, codec, raw_bytes;
    if (!PyArg_ParseTuple(arguments, "w*y*KKIIKI:write_block_head", &head, &stored, &schema,
                          &segment, &number, &codec, &rows, &raw_bytes)) {
        return NULL;
    }
    const bool fits =
        head.len == EM_BLOCK_HEAD_BYTES && stored.len <= (Py_ssize_t)EM_BLOCK_BYTES_MAX;
    if (fits) {
        PyThreadState *state = stored.len >= RELEASE_BYTES_MIN ? PyEval_SaveThread() : NULL;
        const em_block block = {
            .schema = schema,
            .segment = segment,
            .rows = rows,
            .checksum = em_xxh3(stored.buf, (size_t)stored.len, segment),
            .number = number,
            .codec = codec,
            .raw_bytes = raw_bytes,
            .stored_bytes = (uint32_t)stored.len,
        };
        em_block_write_head(&block, head.buf);
        if (state != NULL) {
            PyEval_RestoreThread(state);
        }
    }
    PyBuffer_Release(&head);
    PyBuffer_Release(&stored);
    if (!fits) {
        PyErr_Format(PyExc_ValueError, "a head has %d bytes, a block at most %zu",
                     EM_BLOCK_HEAD_BYTES, EM_BLOCK_BYTES_MAX);
        return NULL;
    }
    Py_RETURN_NONE;
}

static int parse_head(const Py_buffer *head, uint64_t segment, em_block *block) {
    if (head->len != EM_BLOCK_HEAD_BYTES || !em_block_read_head(head->buf, segment, block)) {
        PyErr_SetString(PyExc_ValueError, "the head is damaged, or of another segment or version");
        return -1;
    }
    return 0;
}

static PyObject *read_head(PyObject *module, PyObject *arguments) {
    (void)module;
    Py_buffer head;
    unsigned long long segment;
    em_block block;
    if (!PyArg_ParseTuple(arguments, "y*K:read_block_head", &head, &segment)) {
        return NULL;
    }
    const int failed = parse_head(&head, segment, &block);
    PyBuffer_Release(&head);
    return failed ? NULL
                  : Py_BuildValue("KIIKIIK", (unsigned long long)block.schema, block.number,
                                  block.codec, (unsigned long long)block.rows, block.raw_bytes,
                                  block.stored_bytes, (unsigned long long)block.checksum);
}

/* Check source and target against the head; return NULL when they fit, else what is wrong. */
static const char *open_into(const em_block *block, const Py_buffer *stored,
                             const Py_buffer *target) {
    const uint8_t *from = stored->buf;
    uint8_t *to = target->buf;
    if (stored->len != (Py_ssize_t)block->stored_bytes ||
        target->len < (Py_ssize_t)block->raw_bytes) {
        return "the sizes of the stored bytes and the target do not fit the block's head";
    }
    const bool in_place = from == to && block->codec == EM_RAW;
    const bool apart = from + stored->len <= to || to + target->len <= from;
    if (!apart && !in_place) {
        return "source and target overlap";
    }
    PyThreadState *state = stored->len >= RELEASE_BYTES_MIN ? PyEval_SaveThread() : NULL;
    const bool sound = in_place ? em_block_is_sound(block, from) : em_block_open(block, from, to);
    if (state != NULL) {
        PyEval_RestoreThread(state);
    }
    return sound ? NULL : "the block's bytes are damaged";
}

static PyObject *open_block(PyObject *module, PyObject *arguments) {
    (void)module;
    Py_buffer head, stored, target;
    unsigned long long segment;
    em_block block;
    if (!PyArg_ParseTuple(arguments, "y*Ky*w*:open_block", &head, &segment, &stored, &target)) {
        return NULL;
    }
    PyObject *made = NULL;
    if (parse_head(&head, segment, &block) == 0) {
        const char *wrong = open_into(&block, &stored, &target);
        if (wrong == NULL) {
            made = PyLong_FromUnsignedLong(block.raw_bytes);
        } else {
            PyErr_SetString(PyExc_ValueError, wrong);
        }
    }
    PyBuffer_Release(&head);
    PyBuffer_Release(&stored);
    PyBuffer_Release(&target);
    return made;
}

/* Write a range of a file back to its disk, and wait for it on request; systems other than Linux
 * sync the whole file. */
static PyObject *sync_range(PyObject *module, PyObject *arguments) {
    (void)module;
    int file, wait;
    long long start, bytes;
    if (!PyArg_ParseTuple(arguments, "iLLp:sync_range", &file, &start, &bytes, &wait)) {
        return NULL;
    }
    int failed;
    PyThreadState *state = PyEval_SaveThread();
#ifdef SYNC_FILE_RANGE_WRITE
    const unsigned int waiting = SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WAIT_AFTER;
    failed = sync_file_range(file, start, bytes, SYNC_FILE_RANGE_WRITE | (wait ? waiting : 0u)) < 0
                 ? errno
                 : 0;
    if (failed == ESPIPE || failed == ENOSYS) {
        failed = 0; /* no disk below this file, or an operating system kernel without the call */
    }
#else
    failed = wait && fsync(file) < 0 ? errno : 0;
#endif
    PyEval_RestoreThread(state);
    if (failed) {
        errno = failed;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"write_block_head", write_head, METH_VARARGS,
     "write_block_head($module, head, stored, schema, segment, number, codec, rows, raw_bytes, "
     "/)\n--\n\nHash the stored bytes and write the head of 64 bytes."},
    {"read_block_head", read_head, METH_VARARGS,
     "read_block_head($module, head, segment, /)\n--\n\nReturn (schema, number, codec, rows, "
     "raw_bytes, stored_bytes, checksum); ValueError when the head is damaged or another "
     "segment's."},
    {"open_block", open_block, METH_VARARGS,
     "open_block($module, head, segment, stored, target, /)\n--\n\nVerify the stored bytes and "
     "decompress them into the target; ValueError when damaged. Uncompressed bytes may be verified "
     "in place."},
    {"sync_range", sync_range, METH_VARARGS,
     "sync_range($module, file, start, bytes, wait, /)\n--\n\nWrite a range of a file back to its "
     "disk."},
    {NULL, NULL, 0, NULL},
};

int block_register(PyObject *module) {
    return PyModule_AddFunctions(module, functions);
}
