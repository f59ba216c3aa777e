/* The structs of Arrow's C data and stream interfaces, as their specification defines them:
 * https://arrow.apache.org/docs/format/CDataInterface.html */
#ifndef EMSQRT_ARROW_STREAM_H
#define EMSQRT_ARROW_STREAM_H

#include <stdint.h>

struct ArrowSchema;

struct ArrowArray {
    int64_t length;
    int64_t null_count; /* -1: not known */
    int64_t offset;
    int64_t n_buffers;
    int64_t n_children;
    const void **buffers;
    struct ArrowArray **children;
    struct ArrowArray *dictionary;
    void (*release)(struct ArrowArray *); /* NULL: the struct is empty */
    void *private_data;
};

struct ArrowArrayStream {
    int (*get_schema)(struct ArrowArrayStream *, struct ArrowSchema *out);
    /* 0 and an empty array at the end of the stream, or an errno. */
    int (*get_next)(struct ArrowArrayStream *, struct ArrowArray *out);
    const char *(*get_last_error)(struct ArrowArrayStream *);
    void (*release)(struct ArrowArrayStream *);
    void *private_data;
};

#endif
