/* Groups to columns: keys decoded, states as Arrow columns or converted into results. */
#ifndef EMSQRT_FINISH_H
#define EMSQRT_FINISH_H

#include "fill.h"
#include "keys.h"
#include "rows.h"
#include "states.h"

enum em_output_op {
    EM_OUT_STATE,    /* the part's state column */
    EM_OUT_INTEGER,  /* an exact sum as I64 or U64 */
    EM_OUT_FLOAT,    /* a float sum */
    EM_OUT_MEAN,     /* a sum and a count */
    EM_OUT_VARIANCE, /* a float sum, the sum of squares and a count */
    EM_OUT_STDDEV,
    EM_OUT_ESTIMATE, /* of a sketch */
    EM_OUTPUT_OPS,
};

typedef struct {
    enum em_output_op op;
    uint32_t part; /* the first part that it reads; any others follow it */
    enum em_kind kind;
    int32_t scale; /* of a decimal sum, for the mean */
} em_output;

enum em_finish_fault { EM_FINISH_OK, EM_FINISH_DAMAGED, EM_FINISH_NO_ROOM, EM_FINISH_OVERFLOW };

typedef struct {
    em_layout layout;
    em_key_spec keys;
    size_t output_count;
    em_output *outputs;
    em_array *arrays;  /* keys.count + output_count; kinds are set */
    em_packed *packed; /* layout.count */
    uint8_t *memory;
    size_t memory_bytes;
    enum em_finish_fault fault;
    size_t fault_output;
} em_finisher;

/* Return whether each output can be computed from its parts. */
bool em_finisher_check(const em_finisher *finisher);

/* Read rows while their columns fit the memory; return how many, and their bytes in `consumed`. */
size_t em_finish(em_finisher *finisher, const uint8_t *rows, size_t bytes, size_t *consumed);

#endif
