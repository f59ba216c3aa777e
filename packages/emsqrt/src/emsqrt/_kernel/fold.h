/* From the different values of each group to what is made of them: COUNT(DISTINCT), quantiles.
 *
 * A table over (keys, value) with one count gives rows sorted by keys and then by value. The fold
 * reads them as they come and writes, for each group, a row of the main aggregate: states of the
 * parts that the values fill, and empty ones of all others. So memory does not grow with a group.
 *
 * The value is the last key column, nulls first. A null value heads its group, and its count is
 * that of all the group's values, which is what a quantile has to know before it sees them.
 */
#ifndef EMSQRT_FOLD_H
#define EMSQRT_FOLD_H

#include "accumulate.h"
#include "combine.h"
#include "keys.h"

typedef struct {
    uint32_t part; /* EM_MIN, which holds the result: of F64, or of the value's kind if discrete */
    double fraction;
    uint64_t numerator, denominator; /* the fraction of a discrete one; denominator 0: it is none */
    uint64_t low_at, high_at;
    double weight, low;
} em_quantile;

typedef struct {
    em_layout layout; /* of the main aggregate; column 0 where the value goes, or EM_NO_COLUMN */
    em_key_spec keys; /* with the value's column */
    enum em_kind *kinds;
    int32_t scale; /* of the value, when it is a decimal */
    size_t quantile_count;
    em_quantile *quantiles;
    uint8_t *prefix; /* the group's key */
    size_t prefix_bytes, prefix_max;
    bool open;         /* whether there is a group */
    bool counting;     /* no part but counts takes the value */
    uint64_t before;   /* values of the group so far */
    size_t text_bytes; /* of the value, when it is text */
    uint8_t *record;
    em_heap heap;
    uint8_t *room; /* for values on their way into the record */
    size_t room_bytes, value_count;
    em_array values;
    enum em_combine_fault fault;
} em_fold;

bool em_fold_open(em_fold *fold, uint8_t *memory, size_t bytes);

/* As em_combiner_run(). */
em_progress em_fold_run(em_fold *fold, const uint8_t *rows, size_t bytes, bool last, uint8_t *out,
                        size_t out_bytes);

#endif
