/* Shared by the extension's files: the object layouts, and how errors are raised.
 *
 * Each C type is a base class that implements the loops. The Python class derived from it
 * implements the policy, in methods that C calls only off the fast path:
 *
 *     _wait_for_room(threshold)          producer: nap once; raise if no consumer will make room
 *     _fail(reason, position, detail)    raise the error for an enum strand_failure
 */
#ifndef STRAND_NATIVE_H
#define STRAND_NATIVE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>
#include <stdint.h>

#include "_ring.h"
#include "_types.h"

/* The reason passed to `_fail`: results of the core, then errors in values. */
enum strand_failure {
    FAIL_TOO_LARGE = STRAND_TOO_LARGE, /* detail: bytes requested */
    FAIL_ABORTED = STRAND_ABORTED,
    FAIL_EXHAUSTED = STRAND_EXHAUSTED,
    FAIL_CORRUPT = STRAND_CORRUPT,
    FAIL_RANGE = STRAND_RANGE, /* detail: the sequence number */
    FAIL_CLOSED = 16,          /* this end was closed, or belongs to the parent process */
    FAIL_VALUE = 17,           /* detail: the value that does not fit field `position` */
    FAIL_NULL = 18,            /* a null in field `position`, which cannot be null */
    FAIL_RECORD = 19,      /* detail: a record that is no tuple, list or mapping of the fields */
    FAIL_FIELD = 20,       /* detail: a name that the schema does not have */
    FAIL_TYPE = 21,        /* detail: the getter's type; field `position` has another */
    FAIL_INTERN = 22,      /* detail: a string or handle outside the intern table */
    FAIL_TEXT = 23,        /* detail: the error; field `position` does not decode */
    FAIL_NO_RECORD = 24,   /* the cursor is on no record, or on an acknowledged one */
    FAIL_ORDER = 25,       /* detail: the sequence number committed out of order */
    FAIL_BLOCKS = 26,      /* payloads need a block ring, typed records one with fields */
    FAIL_COUNT = 27,       /* detail: slots requested at once; too many */
    FAIL_ACKNOWLEDGE = 28, /* detail: the position; beyond the commit, or below the last one */
};

/* One field of a compiled schema. */
typedef struct {
    PyObject *name; /* interned */
    uint8_t tag;    /* on the wire: FIELD_TYPES */
    uint8_t kind;   /* enum field_kind */
    uint8_t width;  /* bytes in the slot */
    bool heap;
    uint8_t heap_align;
    uint32_t offset;  /* in the slot */
    int32_t null_bit; /* in the null bitmap, -1 when it cannot be null */
} strand_field;

/* A compiled schema: Layout(version, stride, fields), fields as (name, tag, offset, width, heap,
 * heap_align, null_bit). `intern` may be replaced while rings use it. */
typedef struct {
    PyObject ob_base;
    uint32_t version;
    uint32_t stride;
    uint32_t count;
    bool gapless; /* every byte of a slot belongs to a field, and none is null */
    bool blocks;  /* v6 and one plain `bytes` field */
    strand_field *fields;
    PyObject *index;      /* dict: name -> position */
    PyObject *intern;     /* tuple of str: the string of each utf8_ref handle */
    PyObject *handles;    /* dict: str -> handle, for writing */
    PyObject *array_type; /* array.array: the type of copied array payloads */
} layout_object;

typedef struct {
    PyObject *lease_type;
    PyObject *consumer_type;
    PyObject *row_iterator_type;
    PyObject *layout_type;
    PyObject *json_dumps;
    PyObject *json_loads;
} native_state;

/* Base of StrandWriter. */
typedef struct {
    PyObject ob_base;
    Py_buffer view; /* keeps the mapping alive; obj is NULL once closed */
    Py_buffer doorbell;
    native_state *state;
    layout_object *layout;
    unsigned busy; /* calls in progress that use addresses: the last one releases the mapping */
    bool closing;
    strand_producer core;
    uint64_t *heap_end;
} producer_object;

/* Base of StrandView. */
typedef struct {
    PyObject ob_base;
    Py_buffer view;
    Py_buffer doorbell;
    native_state *state;
    layout_object *layout;
    unsigned busy;
    bool closing;
    bool poisons; /* debug mode: overwrite acknowledged records */
    strand_consumer core;
    uint64_t reading; /* the record being decoded, for errors; UINT64_MAX: one of several */
} consumer_object;

/* ---- _layout.c ------------------------------------------------------------------------------ */

/* The rows of FIELD_TYPES, as tuples of their texts (name, kind, struct code, getter) and tag. */
PyObject *list_field_types(void);

/* ---- _native.c ------------------------------------------------------------------------------ */

/* The module's state for an object of a type made by this module, or of a subclass of one. */
native_state *state_of(PyTypeObject *type);
PyObject *allocate(PyTypeObject *type);
void free_object(PyObject *self);
int to_u64(PyObject *value, uint64_t *out);

/* Call self._fail(reason, position, detail), which raises; position -1 is None, detail may be
 * NULL. Always NULL, for `return fail(...)`. */
PyObject *fail(void *self, int reason, Py_ssize_t position, PyObject *detail);
/* The same with a number as detail. */
PyObject *fail_number(void *self, int reason, uint64_t detail);

/* Acquire the buffers of a ring: its segment, and the bell that a fan-in shares or None. Rechecks
 * the geometry, so that the core never accesses memory outside of the segment. */
int map_ring(PyObject *args, native_state *state, Py_buffer *view, Py_buffer *doorbell,
             layout_object **layout, strand_ring *ring);

/* ---- _producer.c ---------------------------------------------------------------------------- */

/* True, and an error set, when this end was closed. */
bool producer_closed(producer_object *self);
/* Publish the sealed records and wait once for room; -1 and an error set if there will be none. */
int wait_for_room(producer_object *self, uint64_t threshold);
/* Claim one slot, waiting until there is one; return its address, or NULL and an error set. */
unsigned char *claim_one(producer_object *self);
/* Claim heap bytes, waiting likewise; return their address, and their monotonic offset. */
unsigned char *claim_payload(producer_object *self, uint64_t bytes, uint64_t align,
                             uint64_t *offset);

/* ---- _consumer.c ---------------------------------------------------------------------------- */

bool consumer_closed(consumer_object *self);
/* Leave a call that incremented `busy`; returns `result`. */
PyObject *consumer_done(consumer_object *self, PyObject *result);

/* ---- _bells.c ------------------------------------------------------------------------------- */

/* Module functions. nap_any(bells, seen, nanoseconds): sleep until one of the bells (buffers of
 * four bytes) differs from its number in `seen`, and list the positions of those that do.
 * ring_bell(bell): increment one and wake its sleepers. */
PyObject *native_nap_any(PyObject *module, PyObject *args);
PyObject *native_ring_bell(PyObject *module, PyObject *bell);

/* ---- _sequences.c --------------------------------------------------------------------------- */

/* Module functions over lists and tuples: find None; join strings or bytes into one buffer. */
PyObject *native_find_nulls(PyObject *module, PyObject *values);
PyObject *native_flatten(PyObject *module, PyObject *args);

/* ---- _lease.c ------------------------------------------------------------------------------- */

/* Lease `bytes` at byte `offset` of the segment, read-only. */
PyObject *make_lease(consumer_object *owner, uint64_t offset, uint64_t bytes);

/* ---- _rows.c -------------------------------------------------------------------------------- */

/* Producer methods. */
PyObject *producer_write(producer_object *self, PyObject *record);
PyObject *producer_write_record_batch(producer_object *self, PyObject *records);
/* Consumer methods. */
PyObject *consumer_tuples(consumer_object *self, PyObject *const *args, Py_ssize_t count);
PyObject *consumer_rows(consumer_object *self, PyObject *const *args, Py_ssize_t count);

/* Read field `at` of the slot at `slot` into a new Python object. */
PyObject *read_value(consumer_object *self, const unsigned char *slot, uint32_t at);

/* ---- _batches.c ----------------------------------------------------------------------------- */

/* Producer: _scatter(count, columns); consumer: _gather(start, stop, columns), _payload_sizes. */
PyObject *producer_scatter(producer_object *self, PyObject *args);
PyObject *consumer_gather(consumer_object *self, PyObject *args);
PyObject *consumer_payload_sizes(consumer_object *self, PyObject *args);

extern PyType_Spec producer_spec, consumer_spec, lease_spec, layout_spec, cursor_spec,
    row_iterator_spec;

#endif
