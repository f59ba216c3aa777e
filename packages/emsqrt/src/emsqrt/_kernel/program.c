#include "program.h"

#include <string.h>

#include "program_ops.h"

enum { DEPTH_MAX = 64, LENGTH_MAX = 4096, DIGITS_MAX = 38 };

static em_constant constant_at(const em_program *program, size_t index) {
    em_constant constant;
    memcpy(&constant, program->constants + index * sizeof constant, sizeof constant);
    return constant;
}

static em_value value_of(const em_program *program, const em_constant *constant) {
    em_value value = {.decimal = 0};
    if (constant->lane == EM_LANE_TEXT) {
        value.text = (em_text){program->constants + constant->offset, constant->size};
    } else {
        memcpy(&value, constant->payload, sizeof value);
    }
    return value;
}

/* Checking
 * ---------------------------------------------------------------------------------------*/

static const char *check_constants(const em_program *program) {
    for (size_t i = 0; i < program->constant_count; i++) {
        const em_constant constant = constant_at(program, i);
        if (constant.lane >= EM_LANES) {
            return "a constant has no such lane";
        }
        const bool outside = constant.offset > program->constants_bytes ||
                             constant.size > program->constants_bytes - constant.offset;
        if (constant.lane == EM_LANE_TEXT && outside) {
            return "a constant's text is not in the buffer";
        }
    }
    return NULL;
}

static const char *check_list(const em_program *program, const em_instruction *at) {
    if (at->arg >= program->constant_count) {
        return "there is no such constant";
    }
    const em_constant count = constant_at(program, at->arg);
    const int64_t values = value_of(program, &count).i64;
    if (count.lane != EM_LANE_I64 || values < 0 ||
        (uint64_t)values >= program->constant_count - at->arg) {
        return "a list is longer than the constants";
    }
    for (size_t i = 1; i <= (size_t)values; i++) {
        if (constant_at(program, at->arg + i).lane != at->lane) {
            return "a list has a value of another lane";
        }
    }
    return NULL;
}

/* The lanes that an instruction pops from the stack; return how many. */
static size_t operands(const em_instruction *at, uint8_t *lane) {
    *lane = at->lane;
    switch ((enum em_op)at->op) {
    case EM_OP_COLUMN:
    case EM_OP_CONSTANT:
        return 0;
    case EM_OP_AND:
    case EM_OP_OR:
        *lane = EM_LANE_BOOL;
        return 2;
    case EM_OP_STARTS:
    case EM_OP_ENDS:
    case EM_OP_CONTAINS:
        *lane = EM_LANE_TEXT;
        return 2;
    case EM_OP_CHOOSE: /* the two values are below the BOOL */
        return 3;
    case EM_OP_NOT:
        *lane = EM_LANE_BOOL;
        return 1;
    case EM_OP_IS_NAN:
        *lane = EM_LANE_F64;
        return 1;
    case EM_OP_TO_U64:
        *lane = EM_LANE_I64;
        return 1;
    case EM_OP_IS_NULL:
    case EM_OP_IS_IN:
    case EM_OP_NEG:
    case EM_OP_ABS:
    case EM_OP_TO_F64:
    case EM_OP_TO_DECIMAL:
    case EM_OP_RESCALE:
        return 1;
    default:
        return 2;
    }
}

static bool lane_fits(const em_instruction *at) {
    const uint8_t lane = at->lane;
    const bool number = lane >= EM_LANE_I64 && lane <= EM_LANE_DECIMAL;
    switch ((enum em_op)at->op) {
    case EM_OP_ADD:
    case EM_OP_SUB:
    case EM_OP_MUL:
        return number;
    case EM_OP_NEG:
    case EM_OP_ABS:
        return number && lane != EM_LANE_U64;
    case EM_OP_DIV:
        return lane == EM_LANE_F64;
    case EM_OP_TO_F64:
        return number && lane != EM_LANE_F64;
    case EM_OP_TO_DECIMAL:
        return lane == EM_LANE_I64 || lane == EM_LANE_U64;
    case EM_OP_RESCALE:
        return lane == EM_LANE_DECIMAL;
    default:
        return true;
    }
}

static const char *check_one(const em_program *program, const em_instruction *at) {
    if (at->op >= EM_OPS || at->lane >= EM_LANES || !lane_fits(at)) {
        return "an instruction is unknown, or does not support its lane";
    }
    const bool decimal = at->lane == EM_LANE_DECIMAL || at->op == EM_OP_TO_DECIMAL;
    if (decimal && at->op >= EM_OP_ADD && at->arg > DIGITS_MAX) {
        return "a decimal has 38 digits at most";
    }
    if (at->op == EM_OP_TO_DECIMAL && at->arg > (at->lane == EM_LANE_U64 ? 18 : 19)) {
        return "an integer times this power of ten exceeds a decimal";
    }
    if (at->op == EM_OP_IS_IN) {
        return check_list(program, at);
    }
    if (at->op == EM_OP_CONSTANT &&
        (at->arg >= program->constant_count || constant_at(program, at->arg).lane != at->lane)) {
        return "there is no such constant of this lane";
    }
    return NULL;
}

const char *em_program_check(em_program *program) {
    uint8_t lanes[DEPTH_MAX] = {0};
    size_t height = 0;
    const char *wrong = check_constants(program);
    program->depth = program->column_count = 0;
    if (program->length == 0 || program->length > LENGTH_MAX) {
        return "a program has 1 to 4096 instructions";
    }
    for (size_t i = 0; i < program->length && wrong == NULL; i++) {
        const em_instruction *at = &program->code[i];
        wrong = check_one(program, at);
        uint8_t lane = 0;
        const size_t operand_count = wrong == NULL ? operands(at, &lane) : 0;
        if (wrong == NULL && operand_count > height) {
            return "the stack is empty";
        }
        for (size_t k = 0; k < operand_count; k++) {
            if (lanes[height - 1 - k] != (k < 2 ? lane : EM_LANE_BOOL)) {
                return "an operand has another lane";
            }
        }
        height = height - operand_count + 1;
        if (height > DEPTH_MAX) {
            return "the stack is too deep";
        }
        lanes[height - 1] = (uint8_t)em_result_lane(at);
        const size_t slots =
            height + (at->op == EM_OP_IS_IN); /* IS_IN collects its result in one more slot */
        program->depth = slots > program->depth ? slots : program->depth;
        if (at->op == EM_OP_COLUMN && at->arg >= program->column_count) {
            program->column_count = (size_t)at->arg + 1;
        }
    }
    program->result = (enum em_lane)lanes[0];
    return wrong != NULL ? wrong : height == 1 ? NULL : "more than one value is left on the stack";
}

bool em_program_accepts(const em_program *program, const em_columns *columns) {
    bool fits = columns->column_count >= program->column_count;
    for (size_t i = 0; i < program->length && fits; i++) {
        const em_instruction *at = &program->code[i];
        fits = at->op != EM_OP_COLUMN || em_lane_of(columns->columns[at->arg].kind) == at->lane;
    }
    return fits;
}

/* Running
 * ----------------------------------------------------------------------------------------*/

static em_slot slot_at(const em_program *program, size_t height) {
    uint8_t *base = program->stack + height * em_slot_bytes(program->block_rows);
    return (em_slot){base, base + program->block_rows * 16};
}

static void is_in(const em_program *program, const em_instruction *at, size_t count, em_slot slot,
                  uint8_t *found) {
    const em_constant head = constant_at(program, at->arg);
    const size_t values = (size_t)value_of(program, &head).i64;
    bool unknown = false;
    memset(found, 0, count);
    for (size_t i = 1; i <= values; i++) {
        const em_constant each = constant_at(program, at->arg + i);
        unknown |= !each.valid;
        if (each.valid) {
            em_find((enum em_lane)at->lane, count, slot, value_of(program, &each), found);
        }
    }
    for (size_t row = 0; row < count; row++) {
        const bool known = values == 0 || (slot.valid[row] && (found[row] || !unknown));
        slot.valid[row] = known;
        ((uint8_t *)slot.values)[row] = found[row];
    }
}

static size_t step(const em_program *program, const em_instruction *at, const em_columns *columns,
                   size_t start, size_t count, size_t *height) {
    const size_t top = *height;
    switch ((enum em_op)at->op) {
    case EM_OP_COLUMN:
        em_load(&columns->columns[at->arg], start, count, slot_at(program, (*height)++));
        return count;
    case EM_OP_CONSTANT: {
        const em_constant constant = constant_at(program, at->arg);
        em_fill((enum em_lane)at->lane, constant.valid, value_of(program, &constant), count,
                slot_at(program, (*height)++));
        return count;
    }
    case EM_OP_IS_IN: /* the slot above `top` is free: em_program_check() counted it in `depth` */
        is_in(program, at, count, slot_at(program, top - 1), slot_at(program, top).values);
        return count;
    case EM_OP_EQ:
    case EM_OP_NE:
    case EM_OP_LT:
    case EM_OP_LE:
    case EM_OP_GT:
    case EM_OP_GE:
        em_compare((enum em_op)at->op, (enum em_lane)at->lane, count, slot_at(program, top - 2),
                   slot_at(program, --*height));
        return count;
    case EM_OP_AND:
    case EM_OP_OR:
        em_logic((enum em_op)at->op, count, slot_at(program, top - 2), slot_at(program, --*height));
        return count;
    case EM_OP_STARTS:
    case EM_OP_ENDS:
    case EM_OP_CONTAINS:
        em_match((enum em_op)at->op, count, slot_at(program, top - 2), slot_at(program, --*height));
        return count;
    case EM_OP_CHOOSE:
        *height -= 2;
        em_choose((enum em_lane)at->lane, count, slot_at(program, top - 3),
                  slot_at(program, top - 2), slot_at(program, top - 1));
        return count;
    case EM_OP_ADD:
    case EM_OP_SUB:
    case EM_OP_MUL:
    case EM_OP_DIV:
        return em_arithmetic(at, count, slot_at(program, top - 2), slot_at(program, --*height));
    default:
        return em_unary(at, count, slot_at(program, top - 1));
    }
}

bool em_program_run(const em_program *program, const em_columns *columns, size_t start,
                    size_t count, em_program_fault *fault) {
    size_t height = 0;
    for (size_t i = 0; i < program->length; i++) {
        const em_instruction *at = &program->code[i];
        const size_t top = height;
        const size_t done = step(program, at, columns, start, count, &height);
        if (done < count) {
            const bool two = at->op <= EM_OP_DIV;
            const em_slot left = slot_at(program, top - (two ? 2 : 1));
            const enum em_lane lane = (enum em_lane)at->lane;
            *fault = (em_program_fault){.failed = true, .row = start + done, .instruction = i};
            fault->left = em_value_at(lane, left, done);
            fault->right = em_value_at(lane, slot_at(program, top - 1), done);
            return false;
        }
    }
    *fault = (em_program_fault){.failed = false};
    return true;
}
