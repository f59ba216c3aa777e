/* A record under construction: fixed fields in an image of its slot, payloads by address. */
#ifndef STRAND_ENCODER_H
#define STRAND_ENCODER_H

#include "_native.h"

enum {
    SMALL_IMAGE = 512,  /* slots up to this many bytes need no allocation */
    SMALL_PAYLOADS = 8, /* likewise for the number of fields */
};

/* The bytes of a heap field, and the object that keeps them alive. */
typedef struct {
    const char *start;
    Py_ssize_t bytes;
    PyObject *owner; /* NULL: the record itself */
    Py_buffer buffer;
    uint32_t at;
} payload;

typedef struct {
    producer_object *self;
    const layout_object *layout;
    unsigned char *image;
    payload *payloads;
    uint32_t payload_count;
    uint32_t filled;     /* payloads that are not empty */
    uint64_t heap_bytes; /* upper bound of the heap bytes they need, padding included */
    uint64_t largest;    /* bytes of the largest payload */
    void *allocated;
    uint64_t small_image[SMALL_IMAGE / 8];
    payload small_payloads[SMALL_PAYLOADS];
} encoder;

int encoder_init(encoder *e, producer_object *self);
void encoder_free(encoder *e);

/* Encode a tuple, to which the caller keeps a reference until `release_payloads`; -1 and an error
 * set when one of its values does not fit its field. */
int encode(encoder *e, PyObject *record);
void release_payloads(encoder *e);

#endif
