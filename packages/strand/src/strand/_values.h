/* Values of slots as Python objects: what tuples and the cursor share. */
#ifndef STRAND_VALUES_H
#define STRAND_VALUES_H

#include "_native.h"

/* Whether the field has a value; one bit tells, LSB first, when it can be null. */
static inline bool is_present(const unsigned char *slot, const strand_field *field) {
    return field->null_bit < 0 || (slot[field->null_bit >> 3] >> (field->null_bit & 7) & 1);
}

/* Read a field of numbers: no heap, no null. */
PyObject *read_scalar(consumer_object *self, const unsigned char *slot, uint32_t at);

/* Read a heap field into memory of its own. */
PyObject *read_payload(consumer_object *self, const unsigned char *slot, uint32_t at);

/* Lend a `bytes` or array field where it lies: a read-only memoryview of its element type. */
PyObject *lend_payload(consumer_object *self, const unsigned char *slot, uint32_t at);

/* Whether the garbage collector may leave our tuples alone, because no value can refer back. It
 * would find out by itself, but only by looking: a sixth of the cost where many are kept. */
bool is_acyclic(const layout_object *layout);

/* Whether all of start..stop may be read; an error is set otherwise. */
bool is_readable(consumer_object *self, uint64_t start, uint64_t stop);

#endif
