/* The effect of single instructions on vectors; see program.h. */
#ifndef EMSQRT_PROGRAM_OPS_H
#define EMSQRT_PROGRAM_OPS_H

#include "program.h"

/* One vector of the stack: `values` are contiguous and as wide as their lane. */
typedef struct {
    void *values;
    uint8_t *valid;
} em_slot;

/* Write a column's rows, widened to its lane. */
void em_load(const em_column *column, size_t start, size_t count, em_slot slot);

/* Write one value `count` times. */
void em_fill(enum em_lane lane, bool valid, em_value value, size_t count, em_slot slot);

/* left = left op right, as BOOL. */
void em_compare(enum em_op op, enum em_lane lane, size_t count, em_slot left, em_slot right);
void em_logic(enum em_op op, size_t count, em_slot left, em_slot right);
void em_match(enum em_op op, size_t count, em_slot left, em_slot right);

/* flag = `one` where it is true, else `other`; the contents of `one` are destroyed. */
void em_choose(enum em_lane lane, size_t count, em_slot flag, em_slot one, em_slot other);

/* Set `found` for each valid row that equals `value`; the other bytes of `found` stay as they are.
 */
void em_find(enum em_lane lane, size_t count, em_slot slot, em_value value, uint8_t *found);

/* left = left op right; return the first row whose result does not exist, or `count`. */
size_t em_arithmetic(const em_instruction *at, size_t count, em_slot left, em_slot right);

/* slot = op slot; return the first row whose result does not exist, or `count`. */
size_t em_unary(const em_instruction *at, size_t count, em_slot slot);

/* Return the value of one row. */
em_value em_value_at(enum em_lane lane, em_slot slot, size_t row);

/* Return the lane of columns of a kind; EM_LANES when the kind has none. */
enum em_lane em_lane_of(enum em_kind kind);

/* Return the lane of an instruction's result. */
enum em_lane em_result_lane(const em_instruction *at);

#endif
