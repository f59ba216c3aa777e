/* Read values from slots as Python objects; shared by tuples, rows and the cursor. */
#ifndef STRAND_VALUES_H
#define STRAND_VALUES_H

#include "_native.h"

/* Whether the field has a value: a nullable field has one bit in the bitmap, LSB first, 1 =
 * present. */
static inline bool is_present(const unsigned char *slot, const strand_field *field) {
    return field->null_bit < 0 || (slot[field->null_bit >> 3] >> (field->null_bit & 7) & 1);
}

/* Read a field of numbers: no heap, no null. */
PyObject *read_scalar(consumer_object *self, const unsigned char *slot, uint32_t at);

/* Copy a heap field into a new object. */
PyObject *read_payload(consumer_object *self, const unsigned char *slot, uint32_t at);

/* Lease a `bytes` or array field without a copy: a read-only memoryview of its element type. */
PyObject *lease_payload(consumer_object *self, const unsigned char *slot, uint32_t at);

/* Whether tuples of this layout can be untracked by the garbage collector, because no value can
 * be part of a reference cycle. The collector untracks such tuples itself, but only after
 * traversing them: a sixth of the cost when a program keeps many. */
bool is_acyclic(const layout_object *layout);

/* Whether all records of start..stop may be read; an error is set otherwise. */
bool is_readable(consumer_object *self, uint64_t start, uint64_t stop);

#endif
