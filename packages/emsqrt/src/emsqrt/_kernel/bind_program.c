/* ExprProgram(code, constants, memory): a small expression over Columns; see program.h. */
#include <string.h>

#include "native.h"
#include "program.h"

enum { BLOCK_ROWS_MAX = 4096, BLOCK_ROWS_MIN = 16 };

typedef struct {
    PyObject ob_base;
    em_program program;
    em_instruction *code;
    Py_buffer constants, memory;
} program_object;

static void program_dealloc(PyObject *self) {
    program_object *held = (program_object *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyMem_Free(held->code);
    if (held->constants.obj != NULL) {
        PyBuffer_Release(&held->constants);
    }
    if (held->memory.obj != NULL) {
        PyBuffer_Release(&held->memory);
    }
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

/* Copy the code, four bytes an instruction. */
static int copy_code(program_object *held, const Py_buffer *code) {
    const size_t size = (size_t)code->len;
    if (size % sizeof(em_instruction) != 0) {
        PyErr_SetString(PyExc_ValueError, "an instruction has four bytes");
        return -1;
    }
    held->code = PyMem_Calloc(size + 1, 1);
    if (held->code == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    memcpy(held->code, code->buf, size);
    held->program.code = held->code;
    held->program.length = size / sizeof(em_instruction);
    return 0;
}

/* Divide the memory into stack slots. */
static int split_memory(program_object *held) {
    em_program *program = &held->program;
    const uintptr_t base = (uintptr_t)held->memory.buf, aligned = (base + 15) & ~(uintptr_t)15;
    const size_t lost = (size_t)(aligned - base), size = (size_t)held->memory.len;
    size_t rows = BLOCK_ROWS_MAX;
    while (rows >= BLOCK_ROWS_MIN && lost + program->depth * em_slot_bytes(rows) > size) {
        rows /= 2;
    }
    if (rows < BLOCK_ROWS_MIN) {
        PyErr_Format(PyExc_ValueError, "a program of %zu slots needs %zu bytes of memory",
                     program->depth, 16 + program->depth * em_slot_bytes(BLOCK_ROWS_MIN));
        return -1;
    }
    program->block_rows = rows;
    program->stack = (uint8_t *)held->memory.buf + lost;
    return 0;
}

static int open_program(program_object *held, const Py_buffer *code, Py_ssize_t constant_count) {
    em_program *program = &held->program;
    if (copy_code(held, code) < 0) {
        return -1;
    }
    program->constants = held->constants.buf;
    program->constants_bytes = (size_t)held->constants.len;
    program->constant_count = (size_t)constant_count;
    if (constant_count < 0 ||
        (size_t)constant_count > program->constants_bytes / sizeof(em_constant)) {
        PyErr_SetString(PyExc_ValueError, "the constants are outside their buffer");
        return -1;
    }
    const char *wrong = em_program_check(program);
    if (wrong != NULL) {
        PyErr_Format(PyExc_ValueError, "not a program: %s", wrong);
        return -1;
    }
    return split_memory(held);
}

static PyObject *program_new(PyTypeObject *type, PyObject *arguments, PyObject *names) {
    (void)names;
    Py_buffer code;
    PyObject *constants, *memory;
    Py_ssize_t constant_count;
    if (!PyArg_ParseTuple(arguments, "y*OnO:ExprProgram", &code, &constants, &constant_count,
                          &memory)) {
        return NULL;
    }
    const allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    program_object *held = (program_object *)allocate(type, 0);
    const bool opened = held != NULL &&
                        PyObject_GetBuffer(constants, &held->constants, PyBUF_SIMPLE) == 0 &&
                        PyObject_GetBuffer(memory, &held->memory, PyBUF_WRITABLE) == 0 &&
                        open_program(held, &code, constant_count) == 0;
    PyBuffer_Release(&code);
    if (!opened) {
        Py_XDECREF((PyObject *)held);
        return NULL;
    }
    return (PyObject *)held;
}

/* Return an operand of a failed instruction as an int; None when it is wider than 64 bits or not an
 * integer. */
static PyObject *operand_as_int(uint8_t lane, const em_value *value) {
    if (lane == EM_LANE_I64) {
        return PyLong_FromLongLong(value->i64);
    }
    if (lane == EM_LANE_U64) {
        return PyLong_FromUnsignedLongLong(value->u64);
    }
    Py_RETURN_NONE;
}

static PyObject *fault_of(const em_program *program, const em_program_fault *fault) {
    if (!fault->failed) {
        Py_RETURN_NONE;
    }
    const uint8_t lane = program->code[fault->instruction].lane;
    return Py_BuildValue("nnNN", (Py_ssize_t)fault->row, (Py_ssize_t)fault->instruction,
                         operand_as_int(lane, &fault->left), operand_as_int(lane, &fault->right));
}

/* Parse the columns and the number of rows from `start` on; NULL with an exception set. */
static const em_columns *open_rows(const em_program *program, PyObject *object, Py_ssize_t start,
                                   size_t *rows) {
    const em_columns *columns = columns_view(object);
    if (columns == NULL) {
        return NULL;
    }
    if (!em_program_accepts(program, columns)) {
        PyErr_SetString(PyExc_ValueError, "the program was made for other columns");
        return NULL;
    }
    if (start < 0 || (size_t)start > columns->row_count) {
        PyErr_SetString(PyExc_ValueError, "start is outside the columns' rows");
        return NULL;
    }
    *rows = columns->row_count - (size_t)start;
    return columns;
}

static size_t result_bytes(enum em_lane lane, size_t rows) {
    return lane == EM_LANE_BOOL ? (rows + 7) / 8 : rows * (lane == EM_LANE_DECIMAL ? 16 : 8);
}

/* Pack eight bytes of 0 or 1 into a byte: the product moves each bit to its place in the highest
 * byte. */
static inline uint8_t pack_eight(const uint8_t *flags) {
    uint64_t word;
    memcpy(&word, flags, sizeof word);
    return (uint8_t)((word & 0x0101010101010101u) * 0x0102040810204080u >> 56);
}

static void pack_bits(const uint8_t *flags, size_t count, uint8_t *bits) {
    size_t row = 0;
    for (; row + 8 <= count; row += 8) {
        bits[row >> 3] = pack_eight(flags + row);
    }
    if (row < count) {
        uint8_t last[8] = {0};
        memcpy(last, flags + row, count - row);
        bits[row >> 3] = pack_eight(last);
    }
}

/* Write one block's values, NULLs as zeros, from row `done` of the output on. */
static void write_block(const em_program *program, size_t done, size_t count, uint8_t *values,
                        uint8_t *validity) {
    const uint8_t *valid = em_program_validity(program);
    uint8_t *made = (uint8_t *)program->stack;
    const size_t width = result_bytes(program->result, 8) / 8;
    const bool all_valid = memchr(valid, 0, count) == NULL;
    for (size_t row = 0; row < count && !all_valid; row++) {
        if (!valid[row]) {
            memset(made + row * (width == 0 ? 1 : width), 0, width == 0 ? 1 : width);
        }
    }
    pack_bits(valid, count, validity + done / 8);
    if (program->result == EM_LANE_BOOL) {
        pack_bits(made, count, values + done / 8);
    } else {
        memcpy(values + done * width, made, count * width);
    }
}

static PyObject *program_run(PyObject *self, PyObject *arguments) {
    const em_program *program = &((program_object *)self)->program;
    PyObject *object;
    Py_ssize_t start;
    Py_buffer values, validity;
    if (!PyArg_ParseTuple(arguments, "Onw*w*:run", &object, &start, &values, &validity)) {
        return NULL;
    }
    size_t rows = 0, done = 0;
    em_program_fault fault = {.failed = false};
    PyObject *result = NULL;
    const em_columns *columns = open_rows(program, object, start, &rows);
    if (columns == NULL) {
        goto release;
    }
    if (program->result == EM_LANE_TEXT || (size_t)validity.len < (rows + 7) / 8 ||
        (size_t)values.len < result_bytes(program->result, rows)) {
        PyErr_SetString(PyExc_ValueError, "the values do not fit into these buffers");
        goto release;
    }
    while (done < rows && !fault.failed) {
        const size_t left = rows - done;
        const size_t count = left < program->block_rows ? left : program->block_rows;
        if (em_program_run(program, columns, (size_t)start + done, count, &fault)) {
            write_block(program, done, count, values.buf, validity.buf);
            done += count;
        }
    }
    result = Py_BuildValue("nN", (Py_ssize_t)done, fault_of(program, &fault));
release:
    PyBuffer_Release(&values);
    PyBuffer_Release(&validity);
    return result;
}

static PyObject *program_select(PyObject *self, PyObject *arguments) {
    const em_program *program = &((program_object *)self)->program;
    PyObject *object;
    Py_ssize_t start;
    Py_buffer chosen;
    if (!PyArg_ParseTuple(arguments, "Onw*:select", &object, &start, &chosen)) {
        return NULL;
    }
    size_t rows = 0, done = 0, selected = 0;
    em_program_fault fault = {.failed = false};
    PyObject *result = NULL;
    const em_columns *columns = open_rows(program, object, start, &rows);
    const size_t room = (size_t)chosen.len / sizeof(uint32_t);
    if (columns == NULL) {
        goto release;
    }
    if (program->result != EM_LANE_BOOL) {
        PyErr_SetString(PyExc_ValueError, "the program's result is not a boolean");
        goto release;
    }
    while (done < rows && selected < room && !fault.failed) {
        size_t count = rows - done < program->block_rows ? rows - done : program->block_rows;
        count = count < room - selected ? count : room - selected;
        if (em_program_run(program, columns, (size_t)start + done, count, &fault)) {
            const uint8_t *flags = em_program_values(program);
            const uint8_t *valid = em_program_validity(program);
            for (size_t row = 0; row < count; row++) {
                const uint32_t at = (uint32_t)((size_t)start + done + row);
                memcpy((uint8_t *)chosen.buf + selected * sizeof at, &at, sizeof at);
                selected += flags[row] & valid[row];
            }
            done += count;
        }
    }
    result =
        Py_BuildValue("nnN", (Py_ssize_t)done, (Py_ssize_t)selected, fault_of(program, &fault));
release:
    PyBuffer_Release(&chosen);
    return result;
}

static PyMethodDef program_methods[] = {
    {"run", program_run, METH_VARARGS,
     "run(columns, start, values, validity) -> (rows, None or (row, instruction, left, right))"},
    {"select", program_select, METH_VARARGS,
     "select(columns, start, chosen) -> (rows, selected, None or (row, instruction, left, right))"},
    {NULL, NULL, 0, NULL},
};
static PyType_Slot program_slots[] = {
    {Py_tp_doc, "ExprProgram(code, constants, constant_count, memory)\n--\n\nSee program.h."},
    {Py_tp_new, program_new},
    {Py_tp_dealloc, program_dealloc},
    {Py_tp_methods, program_methods},
    {0, NULL},
};
static PyType_Spec program_spec = {
    .name = "emsqrt._kernel.ExprProgram",
    .basicsize = sizeof(program_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = program_slots,
};

int program_register(PyObject *module) {
    PyObject *type = PyType_FromSpec(&program_spec);
    if (type == NULL) {
        return -1;
    }
    const int added = PyModule_AddObjectRef(module, "ExprProgram", type);
    Py_DECREF(type);
    return added;
}
