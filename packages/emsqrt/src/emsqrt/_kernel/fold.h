/* Reduce the distinct values of each group to results: COUNT(DISTINCT) and quantiles.
 *
 * A table over (keys, value) with one count yields rows sorted by keys and then by value. The fold
 * reads them in that order and writes one row of the main aggregate per group: states of the parts
 * that the values fill, and empty states of all others. So memory does not grow with the size of a
 * group.
 *
 * The value is the last key column, nulls first. A row with a null value starts its group, and its
 * count is that of all the group's values, which a quantile needs to know before it reads them.
 */
#ifndef EMSQRT_FOLD_H
#define EMSQRT_FOLD_H

#include "accumulate.h"
#include "combine.h"
#include "keys.h"

typedef struct {
    uint32_t
        part; /* an EM_MIN part that holds the result: of F64, or of the value's kind if discrete */
    double fraction;
    uint64_t numerator,
        denominator; /* the fraction of a discrete quantile; denominator 0: not discrete */
    uint64_t low_at, high_at;
    double weight, low;
} em_quantile;

typedef struct {
    em_layout layout; /* of the main aggregate; column 0 for parts that read the value, else
                         EM_NO_COLUMN */
    em_key_spec keys; /* the value's column included */
    enum em_kind *kinds;
    int32_t scale; /* of the value, when it is a decimal */
    size_t quantile_count;
    em_quantile *quantiles;
    uint8_t *prefix; /* the key of the current group */
    size_t prefix_bytes, prefix_max;
    bool open;         /* whether a group has begun and is not written yet */
    bool counting;     /* only counts read the value */
    uint64_t before;   /* values of the group read so far */
    size_t text_bytes; /* of the value, when it is text */
    uint8_t *record;
    em_heap heap;
    uint8_t *room; /* buffer of values that are not yet added to the record */
    size_t room_bytes, value_count;
    em_array values;
    enum em_combine_fault fault;
} em_fold;

bool em_fold_open(em_fold *fold, uint8_t *memory, size_t bytes);

/* As em_combiner_run(). */
em_progress em_fold_run(em_fold *fold, const uint8_t *rows, size_t bytes, bool last, uint8_t *out,
                        size_t out_bytes);

#endif
