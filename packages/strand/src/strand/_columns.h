/* Copy columns to slots and slots to columns, in memory that the caller mapped.
 *
 * Rows are copied in blocks small enough for the first-level cache, one field of a block after the
 * other, so that neither the columns nor the slots are traversed more than once. Nothing here
 * allocates or calls Python.
 */
#ifndef STRAND_COLUMNS_H
#define STRAND_COLUMNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "_ring.h"

/* Memory layout of a column outside of the ring. */
enum strand_form {
    COLUMN_FIXED = 0,     /* as in the slot, at a distance of `step` bytes */
    COLUMN_BITS = 1,      /* a bit each, least significant first: Arrow's booleans */
    COLUMN_OFFSETS32 = 2, /* i32 offsets into data: Arrow's string, binary, list */
    COLUMN_OFFSETS64 = 3, /* i64 offsets into data: Arrow's large ones */
};

/* Errors of a batch, in addition to the results of the core. */
enum strand_column_result {
    COLUMN_NULL = 64,   /* a null in a field that cannot be null */
    COLUMN_HANDLE = 65, /* a handle outside the intern table */
    COLUMN_TEXT = 66,   /* a string that is not UTF-8 */
};

/* Position and type of a field in a slot. */
typedef struct {
    uint32_t offset;
    uint32_t width;
    int32_t null_bit;    /* in the null bitmap, -1 when it cannot be null */
    uint32_t heap_align; /* of its payloads; 0 when the value itself is in the slot */
    uint32_t item_bytes; /* of a payload's items: what offsets count */
    bool truth;          /* a boolean: nonzero values are stored as 1 */
    bool text;           /* payloads are UTF-8 */
    uint64_t handles;    /* values must be below this; 0: any value is valid */
} strand_place;

/* The buffers that the values of one field are read from. */
typedef struct {
    strand_place place;
    enum strand_form form;
    const unsigned char *values;  /* FIXED: the first row's; else data that offsets point into */
    ptrdiff_t step;               /* FIXED: bytes from one value to the next */
    uint64_t values_bytes;        /* offsets: bytes of data */
    const unsigned char *offsets; /* of the first row */
    uint64_t first_bit;           /* BITS: the first row's */
    const unsigned char *valid;   /* a bit each, 1 = present; NULL when all are */
    uint64_t valid_bit;           /* the first row's */
} strand_source;

/* Rows to write. Either `slots` holds whole slots in the layout of the ring, or `sources` has one
 * entry for each field. */
typedef struct {
    uint64_t rows;
    const unsigned char *slots;
    const strand_source *sources;
    uint32_t count;
    uint32_t bitmap_bytes;
    bool gapless; /* the sources fill every byte of a slot */
} strand_batch;

/* The buffers that the values of one field are written to, for all rows of a gather. */
typedef struct {
    strand_place place;
    uint32_t field; /* its position in the schema, for messages */
    enum strand_form form;
    unsigned char *values;
    uint64_t values_bytes;  /* offsets: room for data */
    unsigned char *offsets; /* i32, one more than rows */
    unsigned char *valid;   /* bits; NULL: not requested */
    uint64_t nulls;         /* number of nulls, counted by the gather */
    uint64_t data_bytes;    /* offsets: data written so far */
    uint64_t detail;        /* on an error: a payload's length, or a handle */
} strand_target;

/* Check that the batch fits this ring, before any of it is written. OK, or the error; `*field` is
 * the source at fault (UINT32_MAX: a whole record is too large), `*detail` a length or a handle. */
int strand_check_batch(const strand_producer *producer, const strand_batch *batch, uint32_t *field,
                       uint64_t *detail);

/* Write and publish rows from `*done` on, piece by piece, and add them to `*done`. OK when all rows
 * are written, WAIT when there is no room for the next piece. */
int strand_scatter(strand_producer *producer, const strand_batch *batch, uint64_t *done,
                   uint64_t *threshold);

/* Copy `rows` readable records from `seq` on into the targets. CORRUPT, HANDLE or TEXT, and the
 * position of the target in `*field`, when a slot has an invalid pointer, handle or string. */
int strand_gather(const strand_ring *ring, uint64_t seq, uint64_t rows, strand_target *targets,
                  uint32_t count, uint32_t *field);

/* Add up the payload bytes of one heap field: the size that its target's data needs. When CORRUPT,
 * `*bytes` is the length in the invalid pointer. */
int strand_payload_bytes(const strand_ring *ring, uint64_t seq, uint64_t rows,
                         const strand_place *place, uint64_t *bytes);

#endif
