/* Small expressions over columns: a postfix program that is evaluated block by block on a stack of
 * vectors.
 *
 * A value's lane is its type on the stack: signed integers, small unsigned ones, dates, times and
 * timestamps are I64; only UInt64 is U64; both float types are F64. Every vector has a validity
 * byte per row.
 */
#ifndef EMSQRT_PROGRAM_H
#define EMSQRT_PROGRAM_H

#include "columns.h"

enum em_lane {
    EM_LANE_BOOL,
    EM_LANE_I64,
    EM_LANE_U64,
    EM_LANE_F64,
    EM_LANE_DECIMAL,
    EM_LANE_TEXT,
    EM_LANES
};

enum em_op {
    EM_OP_COLUMN,   /* push column `arg` */
    EM_OP_CONSTANT, /* push constant `arg` */
    EM_OP_EQ, /* two of `lane` to BOOL; NaN equals itself and is greater than any other value */
    EM_OP_NE,
    EM_OP_LT,
    EM_OP_LE,
    EM_OP_GT,
    EM_OP_GE,
    EM_OP_AND, /* three-valued */
    EM_OP_OR,
    EM_OP_NOT,
    EM_OP_IS_NULL,
    EM_OP_IS_NAN,
    EM_OP_IS_IN, /* whether the value is in a list: constant `arg` is its length (I64), its values
                    follow */
    EM_OP_ADD,   /* I64, U64, F64, DECIMAL; a decimal has at most `arg` digits */
    EM_OP_SUB,
    EM_OP_MUL,
    EM_OP_DIV, /* F64 */
    EM_OP_NEG,
    EM_OP_ABS,
    EM_OP_TO_U64,     /* from a non-negative I64 */
    EM_OP_TO_F64,     /* from `lane` I64 or U64, or DECIMAL of the scale `arg` */
    EM_OP_TO_DECIMAL, /* from `lane` I64 or U64, times 10^`arg` */
    EM_OP_RESCALE,    /* DECIMAL times 10^`arg` */
    EM_OP_STARTS,     /* two TEXT to BOOL: the first begins with the second */
    EM_OP_ENDS,
    EM_OP_CONTAINS,
    EM_OP_CHOOSE, /* a BOOL and two of `lane`: the first value where the BOOL is true, else the
                     second */
    EM_OPS,
};

typedef struct {
    uint8_t op, lane;
    uint16_t arg;
} em_instruction;

typedef struct {
    const uint8_t *bytes;
    uint32_t size;
} em_text;

typedef __int128 em_decimal;

typedef union {
    int64_t i64;
    uint64_t u64;
    double f64;
    uint8_t flag;
    em_decimal decimal;
    em_text text;
} em_value;

/* A constant as Python passes it: 32 bytes. A text is `size` bytes at `offset` of the same buffer.
 */
typedef struct {
    uint8_t lane, valid;
    uint16_t unused;
    uint32_t size;
    uint64_t offset;
    uint8_t payload[16];
} em_constant;

typedef struct {
    const em_instruction *code;
    size_t length;
    const uint8_t *constants;
    size_t constants_bytes, constant_count;
    size_t depth;      /* most slots of the stack that are in use at once */
    size_t block_rows; /* rows evaluated at once */
    uint8_t *stack;    /* depth * em_slot_bytes(block_rows), aligned to 16 */
    enum em_lane result;
    size_t column_count; /* columns that it may read: 0 to column_count - 1 */
} em_program;

typedef struct {
    bool failed;
    size_t row;         /* in the batch */
    size_t instruction; /* the instruction without a value for that row */
    em_value left, right;
} em_program_fault;

/* Bytes of one stack slot: a value of 16 bytes and a validity byte for each row. */
static inline size_t em_slot_bytes(size_t rows) {
    return rows * 16 + (rows + 15) / 16 * 16;
}

/* Check code and constants once: lanes, operands, bounds; set depth, result and column_count.
 * Return NULL, or what is wrong. */
const char *em_program_check(em_program *program);

/* Return whether each column has the lane with which the program reads it. */
bool em_program_accepts(const em_program *program, const em_columns *columns);

/* Evaluate rows [start, start + count), count <= block_rows. The values stay in the bottom slot:
 * `em_program_values` and `em_program_validity`. False: `fault` says where and why. */
bool em_program_run(const em_program *program, const em_columns *columns, size_t start,
                    size_t count, em_program_fault *fault);

static inline const void *em_program_values(const em_program *program) {
    return program->stack;
}

static inline const uint8_t *em_program_validity(const em_program *program) {
    return program->stack + program->block_rows * 16;
}

#endif
