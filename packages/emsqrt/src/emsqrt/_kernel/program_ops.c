#include "program_ops.h"

#include "wide.h"

#include <string.h>

enum { EM_AT_ONCE = 64 }; /* rows compared before their results are stored */

enum em_lane em_lane_of(enum em_kind kind) {
    static const uint8_t lanes[EM_KINDS] = {
        [EM_BOOL] = EM_LANE_BOOL, [EM_I8] = EM_LANE_I64,  [EM_I16] = EM_LANE_I64,
        [EM_I32] = EM_LANE_I64,   [EM_I64] = EM_LANE_I64, [EM_U8] = EM_LANE_I64,
        [EM_U16] = EM_LANE_I64,   [EM_U32] = EM_LANE_I64, [EM_U64] = EM_LANE_U64,
        [EM_F32] = EM_LANE_F64,   [EM_F64] = EM_LANE_F64, [EM_DECIMAL] = EM_LANE_DECIMAL,
        [EM_TEXT] = EM_LANE_TEXT, [EM_BYTES] = EM_LANES,
    };
    return (enum em_lane)lanes[kind];
}

enum em_lane em_result_lane(const em_instruction *at) {
    switch ((enum em_op)at->op) {
    case EM_OP_TO_U64:
        return EM_LANE_U64;
    case EM_OP_TO_F64:
        return EM_LANE_F64;
    case EM_OP_TO_DECIMAL:
        return EM_LANE_DECIMAL;
    case EM_OP_COLUMN:
    case EM_OP_CONSTANT:
    case EM_OP_ADD:
    case EM_OP_SUB:
    case EM_OP_MUL:
    case EM_OP_DIV:
    case EM_OP_NEG:
    case EM_OP_ABS:
    case EM_OP_RESCALE:
    case EM_OP_CHOOSE:
        return (enum em_lane)at->lane;
    default:
        return EM_LANE_BOOL;
    }
}

#define WIDEN(type, wide)                                                                          \
    for (size_t row = 0; row < count; row++) {                                                     \
        type value;                                                                                \
        memcpy(&value, column->values + (first + row) * sizeof value, sizeof value);               \
        ((wide *)slot.values)[row] = (wide)value;                                                  \
    }                                                                                              \
    break

static void load_text(const em_column *column, size_t first, size_t count, em_text *texts) {
    for (size_t row = 0; row < count; row++) {
        const int32_t begin = column->ends[first + row], end = column->ends[first + row + 1];
        texts[row].bytes = column->values == NULL ? (const uint8_t *)"" : column->values + begin;
        texts[row].size = (uint32_t)(end - begin);
    }
}

void em_load(const em_column *column, size_t start, size_t count, em_slot slot) {
    const size_t first = column->offset + start;
    if (column->validity == NULL) {
        memset(slot.valid, 1, count);
    } else {
        for (size_t row = 0; row < count; row++) {
            slot.valid[row] = em_bit(column->validity, first + row);
        }
    }
    switch (column->kind) {
    case EM_BOOL:
        for (size_t row = 0; row < count; row++) {
            ((uint8_t *)slot.values)[row] = em_bit(column->values, first + row);
        }
        break;
    case EM_I8:
        WIDEN(int8_t, int64_t);
    case EM_I16:
        WIDEN(int16_t, int64_t);
    case EM_I32:
        WIDEN(int32_t, int64_t);
    case EM_U8:
        WIDEN(uint8_t, int64_t);
    case EM_U16:
        WIDEN(uint16_t, int64_t);
    case EM_U32:
        WIDEN(uint32_t, int64_t);
    case EM_F32:
        WIDEN(float, double);
    case EM_I64:
    case EM_U64:
    case EM_F64:
        memcpy(slot.values, column->values + first * 8, count * 8);
        break;
    case EM_DECIMAL:
        memcpy(slot.values, column->values + first * 16, count * 16);
        break;
    default:
        load_text(column, first, count, slot.values);
    }
}

#define FILL(type, member)                                                                         \
    for (size_t row = 0; row < count; row++) {                                                     \
        ((type *)slot.values)[row] = value.member;                                                 \
    }                                                                                              \
    break

void em_fill(enum em_lane lane, bool valid, em_value value, size_t count, em_slot slot) {
    memset(slot.valid, valid, count);
    switch (lane) {
    case EM_LANE_BOOL:
        memset(slot.values, value.flag, count);
        break;
    case EM_LANE_DECIMAL:
        FILL(em_decimal, decimal);
    case EM_LANE_TEXT:
        FILL(em_text, text);
    default:
        FILL(uint64_t, u64);
    }
}

em_value em_value_at(enum em_lane lane, em_slot slot, size_t row) {
    em_value value = {.decimal = 0};
    switch (lane) {
    case EM_LANE_BOOL:
        value.flag = ((const uint8_t *)slot.values)[row];
        break;
    case EM_LANE_DECIMAL:
        value.decimal = ((const em_decimal *)slot.values)[row];
        break;
    case EM_LANE_TEXT:
        value.text = ((const em_text *)slot.values)[row];
        break;
    default:
        memcpy(&value, (const uint8_t *)slot.values + row * 8, 8);
    }
    return value;
}

/* Comparison: -1, 0 or 1 ------------------------------------------------------------------------*/

static int order_text(em_text left, em_text right) {
    const uint32_t shared = left.size < right.size ? left.size : right.size;
    const int order = shared == 0 ? 0 : memcmp(left.bytes, right.bytes, shared);
    return order != 0 ? (order > 0) - (order < 0)
                      : (left.size > right.size) - (left.size < right.size);
}

static int order_floats(double left, double right) {
    const bool left_nan = left != left, right_nan = right != right;
    return left_nan || right_nan ? (int)left_nan - (int)right_nan : (left > right) - (left < right);
}

/* A comparison is one of three tests, and whether its answer is negated. */
enum comparison { IS_EQUAL, IS_LESS, IS_MORE };

static enum comparison comparison_of(enum em_op op, uint8_t *negated) {
    *negated = op == EM_OP_NE || op == EM_OP_GE || op == EM_OP_LE;
    return op == EM_OP_EQ || op == EM_OP_NE   ? IS_EQUAL
           : op == EM_OP_LT || op == EM_OP_GE ? IS_LESS
                                              : IS_MORE;
}

#define LESS(one, two) ((one) < (two))
#define SAME(one, two) ((one) == (two))
#define LESS_FLOAT(one, two) (((one) < (two)) | (((one) == (one)) & ((two) != (two))))
#define SAME_FLOAT(one, two) (((one) == (two)) | (((one) != (one)) & ((two) != (two))))

/* Results overwrite the left operand. They are narrower than operands, so the results of some rows
 * never cover an operand that is still to be read. */
#define COMPARE_ROWS(type, answer, two_at)                                                         \
    for (size_t row = 0; row < count; row += EM_AT_ONCE) {                                         \
        const size_t some = count - row < EM_AT_ONCE ? count - row : EM_AT_ONCE;                   \
        const type *ones = (const type *)left.values + row;                                        \
        for (size_t i = 0; i < some; i++) {                                                        \
            const type one = ones[i], two = two_at;                                                \
            answers[i] = (uint8_t)((answer) ^ negated);                                            \
        }                                                                                          \
        memcpy((uint8_t *)left.values + row, answers, some);                                       \
    }                                                                                              \
    break

#define COMPARE(type, less, same, two_at)                                                          \
    switch (comparison) {                                                                          \
    case IS_EQUAL:                                                                                 \
        COMPARE_ROWS(type, same(one, two), two_at);                                                \
    case IS_LESS:                                                                                  \
        COMPARE_ROWS(type, less(one, two), two_at);                                                \
    default:                                                                                       \
        COMPARE_ROWS(type, less(two, one), two_at);                                                \
    }                                                                                              \
    break

#define ROW_OF(type) (((const type *)right.values)[row + i])

static void and_valid(size_t count, em_slot left, em_slot right) {
    uint8_t *restrict to = left.valid;
    const uint8_t *restrict from = right.valid;
    for (size_t row = 0; row < count; row++) {
        to[row] &= from[row];
    }
}

static void compare_texts(enum comparison comparison, uint8_t negated, size_t count, em_slot left,
                          em_slot right) {
    uint8_t *out = left.values;
    for (size_t row = 0; row < count; row++) {
        const em_text one = ((const em_text *)left.values)[row];
        const em_text two = ((const em_text *)right.values)[row];
        const int order = left.valid[row] ? order_text(one, two) : 0;
        const bool answer = comparison == IS_EQUAL  ? order == 0
                            : comparison == IS_LESS ? order < 0
                                                    : order > 0;
        out[row] = left.valid[row] & (answer ^ negated);
    }
}

void em_compare(enum em_op op, enum em_lane lane, size_t count, em_slot left, em_slot right) {
    uint8_t negated, answers[EM_AT_ONCE];
    const enum comparison comparison = comparison_of(op, &negated);
    and_valid(count, left, right);
    switch (lane) {
    case EM_LANE_BOOL:
        COMPARE(uint8_t, LESS, SAME, ROW_OF(uint8_t));
    case EM_LANE_I64:
        COMPARE(int64_t, LESS, SAME, ROW_OF(int64_t));
    case EM_LANE_U64:
        COMPARE(uint64_t, LESS, SAME, ROW_OF(uint64_t));
    case EM_LANE_F64:
        COMPARE(double, LESS_FLOAT, SAME_FLOAT, ROW_OF(double));
    case EM_LANE_DECIMAL:
        COMPARE(em_decimal, LESS, SAME, ROW_OF(em_decimal));
    default:
        compare_texts(comparison, negated, count, left, right);
    }
}

void em_find(enum em_lane lane, size_t count, em_slot slot, em_value value, uint8_t *found) {
    for (size_t row = 0; row < count; row++) {
        if (!slot.valid[row]) {
            continue;
        }
        const em_value held = em_value_at(lane, slot, row);
        switch (lane) {
        case EM_LANE_BOOL:
            found[row] |= held.flag == value.flag;
            break;
        case EM_LANE_F64:
            found[row] |= order_floats(held.f64, value.f64) == 0;
            break;
        case EM_LANE_DECIMAL:
            found[row] |= held.decimal == value.decimal;
            break;
        case EM_LANE_TEXT:
            found[row] |= order_text(held.text, value.text) == 0;
            break;
        default:
            found[row] |= held.u64 == value.u64;
        }
    }
}

void em_logic(enum em_op op, size_t count, em_slot left, em_slot right) {
    const uint8_t deciding = op == EM_OP_OR, other = !deciding;
    uint8_t *restrict one = left.values, *restrict one_valid = left.valid;
    const uint8_t *restrict two = right.values, *restrict two_valid = right.valid;
    for (size_t row = 0; row < count; row++) {
        const uint8_t known = one_valid[row], known_too = two_valid[row];
        const uint8_t decided = (known & (one[row] ^ other)) | (known_too & (two[row] ^ other));
        one_valid[row] = decided | (known & known_too);
        one[row] = decided ^ other;
    }
}

void em_choose(enum em_lane lane, size_t count, em_slot flag, em_slot one, em_slot other) {
    const size_t width = lane == EM_LANE_BOOL                              ? 1
                         : lane == EM_LANE_DECIMAL || lane == EM_LANE_TEXT ? 16
                                                                           : 8;
    const uint8_t *flags = flag.values;
    uint8_t *to = one.values;
    const uint8_t *from = other.values;
    for (size_t row = 0; row < count; row++) {
        if (!flag.valid[row] || !flags[row]) {
            em_copy_value(to + row * width, from + row * width, width);
            one.valid[row] = other.valid[row];
        }
    }
    memcpy(flag.values, one.values, count * width);
    memcpy(flag.valid, one.valid, count);
}

static bool matches(enum em_op op, em_text text, em_text part) {
    if (part.size > text.size) {
        return false;
    }
    if (part.size == 0) {
        return true;
    }
    if (op != EM_OP_CONTAINS) {
        const uint32_t from = op == EM_OP_ENDS ? text.size - part.size : 0;
        return memcmp(text.bytes + from, part.bytes, part.size) == 0;
    }
    const uint8_t *at = text.bytes, *last = text.bytes + (text.size - part.size);
    while (at <= last && (at = memchr(at, part.bytes[0], (size_t)(last - at) + 1)) != NULL) {
        if (memcmp(at, part.bytes, part.size) == 0) {
            return true;
        }
        at++;
    }
    return false;
}

void em_match(enum em_op op, size_t count, em_slot left, em_slot right) {
    uint8_t *out = left.values;
    for (size_t row = 0; row < count; row++) {
        const bool both = left.valid[row] && right.valid[row];
        const em_text text = ((const em_text *)left.values)[row];
        const em_text part = ((const em_text *)right.values)[row];
        out[row] = both && matches(op, text, part);
        left.valid[row] = both;
    }
}

/* Arithmetic
 * -------------------------------------------------------------------------------------*/

static em_decimal power_of_ten(unsigned digits) {
    em_decimal power = 1;
    for (unsigned i = 0; i < digits; i++) {
        power *= 10;
    }
    return power;
}

#define CHECKED(type, wrong)                                                                       \
    for (size_t row = 0; row < count; row++) {                                                     \
        type *one = (type *)left.values + row;                                                     \
        const type two = ((const type *)right.values)[row];                                        \
        type made = 0;                                                                             \
        const bool fails = (wrong);                                                                \
        if (fails && left.valid[row] && right.valid[row]) {                                        \
            return row;                                                                            \
        }                                                                                          \
        left.valid[row] &= right.valid[row];                                                       \
        *one = fails ? 0 : made;                                                                   \
    }                                                                                              \
    return count

#define OPERATION(op, type)                                                                        \
    ((op) == EM_OP_ADD   ? __builtin_add_overflow(*one, two, &made)                                \
     : (op) == EM_OP_SUB ? __builtin_sub_overflow(*one, two, &made)                                \
                         : __builtin_mul_overflow(*one, two, &made))

static inline bool decimal_overflows(enum em_op op, em_decimal one, em_decimal two,
                                     em_decimal *made) {
    if (op != EM_OP_MUL) {
        return op == EM_OP_ADD ? __builtin_add_overflow(one, two, made)
                               : __builtin_sub_overflow(one, two, made);
    }
    if (one == (int64_t)one &&
        two == (int64_t)two) { /* most fit 64 bits: a single multiplication is enough */
        *made = (em_decimal)(int64_t)one * (int64_t)two;
        return false;
    }
    return __builtin_mul_overflow(one, two, made);
}

static inline size_t on_decimals(enum em_op op, em_decimal limit, size_t count, em_slot left,
                                 em_slot right) {
    const unsigned __int128 most = (unsigned __int128)(limit - 1);
    em_decimal *ones = left.values;
    const em_decimal *twos = right.values;
    and_valid(count, left, right);
    for (size_t row = 0; row < count; row++) {
        em_decimal made = 0;
        const bool overflows = decimal_overflows(op, ones[row], twos[row], &made);
        if (overflows || (unsigned __int128)made + most > 2 * most) { /* outside [-most, most] */
            if (left.valid[row]) {
                return row;
            }
            made = 0;
        }
        ones[row] = made;
    }
    return count;
}

static size_t add_floats(enum em_op op, size_t count, em_slot left, em_slot right) {
    double *one = left.values;
    const double *two = right.values;
    for (size_t row = 0; row < count; row++) {
        left.valid[row] &= right.valid[row];
        const double a = one[row], b = two[row];
        one[row] = op == EM_OP_ADD   ? a + b
                   : op == EM_OP_SUB ? a - b
                   : op == EM_OP_MUL ? a * b
                                     : a / b;
    }
    return count;
}

size_t em_arithmetic(const em_instruction *at, size_t count, em_slot left, em_slot right) {
    const enum em_op op = (enum em_op)at->op;
    if (at->lane == EM_LANE_F64) {
        return add_floats(op, count, left, right);
    }
    if (at->lane == EM_LANE_I64) {
        CHECKED(int64_t, OPERATION(op, int64_t));
    }
    if (at->lane == EM_LANE_U64) {
        CHECKED(uint64_t, OPERATION(op, uint64_t));
    }
    const em_decimal limit = power_of_ten(at->arg);
    switch (op) { /* one loop per op */
    case EM_OP_ADD:
        return on_decimals(EM_OP_ADD, limit, count, left, right);
    case EM_OP_SUB:
        return on_decimals(EM_OP_SUB, limit, count, left, right);
    default:
        return on_decimals(EM_OP_MUL, limit, count, left, right);
    }
}

static size_t negate(const em_instruction *at, size_t count, em_slot slot) {
    const bool always = at->op == EM_OP_NEG;
    for (size_t row = 0; row < count; row++) {
        if (at->lane == EM_LANE_F64) {
            double *value = (double *)slot.values + row;
            *value = always ? -*value : __builtin_fabs(*value);
        } else if (at->lane == EM_LANE_DECIMAL) {
            em_decimal *value = (em_decimal *)slot.values + row;
            *value = always || *value < 0 ? (em_decimal)(0 - (unsigned __int128)*value) : *value;
        } else if (at->lane == EM_LANE_I64) {
            int64_t *value = (int64_t *)slot.values + row;
            if (*value == INT64_MIN) {
                if (slot.valid[row]) {
                    return row;
                }
                *value = 0;
            }
            *value = always || *value < 0 ? -*value : *value;
        }
    }
    return count;
}

static void to_decimal(const em_instruction *at, size_t count, em_slot slot) {
    const em_decimal power = power_of_ten(at->arg);
    for (size_t row = count;
         row-- > 0;) { /* from the end: a decimal is wider than the value that it overwrites */
        const em_value held = em_value_at((enum em_lane)at->lane, slot, row);
        const em_decimal whole =
            at->lane == EM_LANE_U64 ? (em_decimal)held.u64 : (em_decimal)held.i64;
        ((em_decimal *)slot.values)[row] = slot.valid[row] ? whole * power : 0;
    }
}

static size_t rescale(const em_instruction *at, size_t count, em_slot slot) {
    const em_decimal power = power_of_ten(at->arg);
    for (size_t row = 0; row < count; row++) {
        em_decimal *value = (em_decimal *)slot.values + row;
        em_decimal made = 0;
        if (__builtin_mul_overflow(*value, power, &made) && slot.valid[row]) {
            return row;
        }
        *value = made;
    }
    return count;
}

size_t em_unary(const em_instruction *at, size_t count, em_slot slot) {
    uint8_t *flags = slot.values;
    switch ((enum em_op)at->op) {
    case EM_OP_NEG:
    case EM_OP_ABS:
        return negate(at, count, slot);
    case EM_OP_RESCALE:
        return rescale(at, count, slot);
    case EM_OP_TO_DECIMAL:
        to_decimal(at, count, slot);
        return count;
    case EM_OP_TO_F64:
        for (size_t row = 0; row < count; row++) {
            const em_value held = em_value_at((enum em_lane)at->lane, slot, row);
            ((double *)slot.values)[row] = at->lane == EM_LANE_U64 ? (double)held.u64
                                           : at->lane == EM_LANE_DECIMAL
                                               ? em_decimal_to_double(held.decimal, at->arg)
                                               : (double)held.i64;
        }
        return count;
    case EM_OP_NOT:
        for (size_t row = 0; row < count; row++) {
            flags[row] = !flags[row];
        }
        return count;
    case EM_OP_IS_NAN:
        for (size_t row = 0; row < count; row++) {
            const double value = ((const double *)slot.values)[row];
            flags[row] = value != value;
        }
        return count;
    case EM_OP_IS_NULL:
        for (size_t row = 0; row < count; row++) {
            flags[row] = !slot.valid[row];
        }
        memset(slot.valid, 1, count);
        return count;
    default: /* EM_OP_TO_U64: the bits stay the same */
        return count;
    }
}
