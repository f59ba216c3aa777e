/* pack_join_rows, null_extend_rows, join_cross, join_lines: functions over rows of joins. */
#include "bind_join.h"

/* Read the fields to remove from lines, four bytes each, and the delimiter and quote. */
static int parse_cut(const Py_buffer *dropped, const char *marks, Py_ssize_t mark_count,
                     const em_columns *columns, em_cut *cut) {
    if (dropped->len % (Py_ssize_t)sizeof *cut->dropped != 0 || mark_count < 1 || mark_count > 2 ||
        (uintptr_t)dropped->buf % sizeof *cut->dropped != 0 || columns->lines == NULL) {
        PyErr_SetString(PyExc_ValueError, "dropped and marks do not describe fields of lines");
        return -1;
    }
    cut->dropped = dropped->buf;
    cut->count = (size_t)dropped->len / sizeof *cut->dropped;
    cut->dialect.delimiter = (uint8_t)marks[0];
    cut->dialect.quote = mark_count > 1 ? (int16_t)(uint8_t)marks[1] : -1;
    return 0;
}

static PyObject *pack_rows(PyObject *module, PyObject *arguments) {
    (void)module;
    PyObject *batch, *spec, *payload_argument;
    Py_ssize_t start, mark_count = 2;
    const char *marks = ",\"";
    Py_buffer out, dropped = {.obj = NULL, .len = 0};
    if (!PyArg_ParseTuple(arguments, "OOOnw*|y*y#:pack_join_rows", &batch, &spec, &payload_argument,
                          &start, &out, &dropped, &marks, &mark_count)) {
        return NULL;
    }
    const em_columns *columns = columns_view(batch);
    const em_key_spec *keys = columns == NULL ? NULL : key_spec_view(spec, columns);
    em_cut cut = {.count = 0};
    em_payload payload;
    bool failed = keys == NULL ||
                  (dropped.len > 0 && parse_cut(&dropped, marks, mark_count, columns, &cut) < 0) ||
                  parse_payload(payload_argument, columns, &payload) < 0;
    size_t bytes = 0, row = (size_t)start;
    if (!failed) {
        failed = start < 0 || (cut.count > 0 && payload.shape != EM_PAYLOAD_LINE);
        if (failed) {
            PyErr_SetString(PyExc_ValueError,
                            "start must not be negative, and only lines can drop fields");
        } else {
            bytes = em_pack_join_rows(columns, keys, &payload, cut.count > 0 ? &cut : NULL, &row,
                                      out.buf, (size_t)out.len);
            failed = bytes == 0 && row < columns->row_count;
            if (failed) {
                PyErr_Format(PyExc_ValueError, "a row does not fit %zd bytes", out.len);
            }
        }
        release_payload(&payload);
    }
    PyBuffer_Release(&out);
    if (dropped.obj != NULL) {
        PyBuffer_Release(&dropped);
    }
    return failed ? NULL : Py_BuildValue("(nn)", (Py_ssize_t)bytes, (Py_ssize_t)row - start);
}

static PyObject *null_extend_rows(PyObject *module, PyObject *arguments) {
    (void)module;
    Py_buffer block, out, bits = {.obj = NULL};
    Py_ssize_t start, first_bit = 0;
    int is_right;
    unsigned flags;
    PyObject *mask = Py_None;
    if (!PyArg_ParseTuple(arguments, "y*nw*pI|On:null_extend_rows", &block, &start, &out, &is_right,
                          &flags, &mask, &first_bit)) {
        return NULL;
    }
    const em_sequenced sequenced = {(flags & EM_JOIN_SEQUENCED) != 0,
                                    (flags & EM_JOIN_RIGHT_SEQUENCED) != 0};
    em_join_output joined = {out.buf, (size_t)out.len, 0, 0};
    size_t at = (size_t)start, passed = 0;
    enum em_walk walk = EM_WALK_DAMAGED;
    bool failed = mask != Py_None && PyObject_GetBuffer(mask, &bits, PyBUF_SIMPLE) < 0;
    if (!failed && is_within(start, &block) && first_bit >= 0) {
        failed = check_bits(&block, start, &bits, first_bit) < 0;
        if (!failed) {
            walk = em_null_extend_rows(block.buf, (size_t)block.len, &at, &passed, is_right != 0,
                                       sequenced, bits.obj == NULL ? NULL : bits.buf,
                                       (size_t)first_bit, &joined);
        }
    }
    PyBuffer_Release(&block);
    PyBuffer_Release(&out);
    if (bits.obj != NULL) {
        PyBuffer_Release(&bits);
    }
    if (failed || walk == EM_WALK_DAMAGED) {
        return failed ? NULL : no_rows();
    }
    return Py_BuildValue("(nnnn)", (Py_ssize_t)at, (Py_ssize_t)joined.used, (Py_ssize_t)joined.rows,
                         (Py_ssize_t)passed);
}

static PyObject *join_cross(PyObject *module, PyObject *arguments) {
    (void)module;
    Py_buffer left, right, out;
    Py_ssize_t left_start, right_start;
    unsigned flags = 0;
    if (!PyArg_ParseTuple(arguments, "y*ny*nw*|I:join_cross", &left, &left_start, &right,
                          &right_start, &out, &flags)) {
        return NULL;
    }
    const em_sequenced sequenced = {(flags & EM_JOIN_SEQUENCED) != 0,
                                    (flags & EM_JOIN_RIGHT_SEQUENCED) != 0};
    em_join_output joined = {out.buf, (size_t)out.len, 0, 0};
    size_t left_at = (size_t)left_start, right_at = (size_t)right_start;
    enum em_walk walk = EM_WALK_DAMAGED;
    if (is_within(left_start, &left) && is_within(right_start, &right)) {
        walk = em_join_cross(left.buf, (size_t)left.len, &left_at, right.buf, (size_t)right.len,
                             &right_at, sequenced, &joined);
    }
    PyBuffer_Release(&left);
    PyBuffer_Release(&right);
    PyBuffer_Release(&out);
    if (walk == EM_WALK_DAMAGED) {
        return no_rows();
    }
    return Py_BuildValue("(nnnn)", (Py_ssize_t)left_at, (Py_ssize_t)right_at,
                         (Py_ssize_t)joined.used, (Py_ssize_t)joined.rows);
}

/* Return (next at, bytes, rows), or raise ValueError when not even the first row fits. */
static PyObject *progress(Py_ssize_t start, size_t size, size_t at, const em_join_output *out) {
    if (out->rows == 0 && (size_t)start < size) {
        PyErr_Format(PyExc_ValueError, "a row does not fit %zu bytes", out->size);
        return NULL;
    }
    return Py_BuildValue("(nnn)", (Py_ssize_t)at, (Py_ssize_t)out->used, (Py_ssize_t)out->rows);
}

static PyObject *join_side(PyObject *module, PyObject *arguments) {
    (void)module;
    Py_buffer block, out;
    Py_ssize_t start, absent_bytes;
    int is_right;
    const char *absent;
    if (!PyArg_ParseTuple(arguments, "y*nw*py#:join_side", &block, &start, &out, &is_right, &absent,
                          &absent_bytes)) {
        return NULL;
    }
    const em_side instead = {(const uint8_t *)absent, (uint32_t)absent_bytes, NULL};
    em_join_output rows = {out.buf, (size_t)out.len, 0, 0};
    size_t at = (size_t)start;
    const size_t size = (size_t)block.len;
    const enum em_walk walk =
        is_within(start, &block) ? em_join_side(block.buf, size, &at, is_right != 0, instead, &rows)
                                 : EM_WALK_DAMAGED;
    PyBuffer_Release(&block);
    PyBuffer_Release(&out);
    return walk == EM_WALK_DAMAGED ? no_rows() : progress(start, size, at, &rows);
}

static PyObject *join_lines(PyObject *module, PyObject *arguments) {
    (void)module;
    Py_buffer block, out;
    Py_ssize_t start;
    const char *separator, *left_absent, *right_absent;
    Py_ssize_t separator_bytes, left_bytes, right_bytes;
    if (!PyArg_ParseTuple(arguments, "y*nw*z#y#y#:join_lines", &block, &start, &out, &separator,
                          &separator_bytes, &left_absent, &left_bytes, &right_absent,
                          &right_bytes)) {
        return NULL;
    }
    const bool left_only = separator == NULL;
    const em_line_parts parts = {
        .separator = {(const uint8_t *)separator, (uint32_t)separator_bytes, NULL},
        .left_absent = {(const uint8_t *)left_absent, (uint32_t)left_bytes, NULL},
        .right_absent = {(const uint8_t *)right_absent, left_only ? 0 : (uint32_t)right_bytes,
                         NULL},
        .left_only = left_only,
    };
    em_join_output lines = {out.buf, (size_t)out.len, 0, 0};
    size_t at = (size_t)start;
    const size_t size = (size_t)block.len;
    const enum em_walk walk = is_within(start, &block)
                                  ? em_join_lines(block.buf, (size_t)block.len, &at, &parts, &lines)
                                  : EM_WALK_DAMAGED;
    PyBuffer_Release(&block);
    PyBuffer_Release(&out);
    if (walk == EM_WALK_DAMAGED) {
        return no_rows();
    }
    return progress(start, size, at, &lines);
}

static PyMethodDef functions[] = {
    {"pack_join_rows", pack_rows, METH_VARARGS,
     "pack_join_rows($module, columns, keys, payload, start, out, dropped=b'', "
     "marks=b',\"', /)\n--\n\nRows whose key is "
     "empty when one of its columns is NULL: (bytes, rows)."},
    {"null_extend_rows", null_extend_rows, METH_VARARGS,
     "null_extend_rows($module, block, at, out, is_right, flags, bits=None, first_bit=0, /)\n--\n\n"
     "Write rows joined with no row: (next at, bytes, rows, rows read)."},
    {"join_cross", join_cross, METH_VARARGS,
     "join_cross($module, left, left_at, right, right_at, out, flags=0, /)\n--\n\nWrite the cross "
     "product of two blocks: (left at, right at, bytes, rows)."},
    {"join_lines", join_lines, METH_VARARGS,
     "join_lines($module, block, at, out, separator, left_absent, right_absent, /)\n--\n\nJoined "
     "rows as lines: (next at, bytes, rows)."},
    {"join_side", join_side, METH_VARARGS,
     "join_side($module, block, at, out, is_right, absent, /)\n--\n\nOne side of joined rows as "
     "rows: (next at, bytes, rows)."},
    {NULL, NULL, 0, NULL},
};

int join_rows_register(PyObject *module) {
    return PyModule_AddFunctions(module, functions);
}
