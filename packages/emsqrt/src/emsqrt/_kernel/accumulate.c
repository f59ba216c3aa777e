/* Add rows to states. Values are first widened to their class, so that one loop handles many kinds.
 */
#include "accumulate.h"

typedef struct {
    bool all_valid;
    uint8_t valid[EM_ROW_BATCH_MAX];
    union {
        int64_t ints[EM_ROW_BATCH_MAX];
        uint64_t words[EM_ROW_BATCH_MAX];
        double floats[EM_ROW_BATCH_MAX];
        em_i128 wides[EM_ROW_BATCH_MAX];
    };
} em_values;

size_t em_row_batch_texts(const em_layout *layout, const em_columns *columns, size_t start,
                          size_t count) {
    size_t bytes = 0;
    for (uint32_t i = 0; i < layout->count; i++) {
        const em_part *part = &layout->parts[i];
        const bool held = part->op >= EM_MIN && part->op <= EM_LAST;
        if (held && part->column != EM_NO_COLUMN && em_class_of(part->kind) == EM_CLASS_TEXT) {
            const em_column *column = &columns->columns[part->column];
            const int32_t *ends = column->ends + column->offset + start;
            bytes += (size_t)(ends[count] - ends[0]);
        }
    }
    return bytes;
}

size_t em_row_batch_growth(const em_layout *layout, const em_columns *columns, size_t start,
                           size_t count) {
    size_t growth = 2 * em_row_batch_texts(layout, columns, start, count);
    for (uint32_t i = 0; i < layout->count; i++) {
        if (layout->parts[i].column != EM_NO_COLUMN) {
            growth += count * em_part_growth(&layout->parts[i]);
        }
    }
    return growth;
}

static void load_validity(const em_column *column, size_t start, size_t count, em_values *out) {
    out->all_valid = column->validity == NULL;
    if (out->all_valid) {
        return;
    }
    bool all = true;
    for (size_t i = 0; i < count; i++) {
        out->valid[i] = em_bit(column->validity, column->offset + start + i);
        all &= out->valid[i];
    }
    out->all_valid = all;
}

#define WIDEN(type, member)                                                                        \
    {                                                                                              \
        const uint8_t *from = column->values + (column->offset + start) * sizeof(type);            \
        for (size_t i = 0; i < count; i++) {                                                       \
            type value;                                                                            \
            memcpy(&value, from + i * sizeof value, sizeof value);                                 \
            out->member[i] = value;                                                                \
        }                                                                                          \
        break;                                                                                     \
    }

/* Load values in the representation of their class; texts are not copied. */
static void load_values(const em_column *column, size_t start, size_t count, em_values *out) {
    load_validity(column, start, count, out);
    switch (column->kind) {
    case EM_BOOL:
        for (size_t i = 0; i < count; i++) {
            out->ints[i] = em_bit(column->values, column->offset + start + i);
        }
        break;
    case EM_I8:
        WIDEN(int8_t, ints)
    case EM_I16:
        WIDEN(int16_t, ints)
    case EM_I32:
        WIDEN(int32_t, ints)
    case EM_I64:
        WIDEN(int64_t, ints)
    case EM_U8:
        WIDEN(uint8_t, ints)
    case EM_U16:
        WIDEN(uint16_t, ints)
    case EM_U32:
        WIDEN(uint32_t, ints)
    case EM_U64:
        WIDEN(uint64_t, words)
    case EM_F32:
        WIDEN(float, floats)
    case EM_F64:
        WIDEN(double, floats)
    case EM_DECIMAL:
        memcpy(out->wides, column->values + (column->offset + start) * 16, count * 16);
        break;
    default:
        break;
    }
}

/* Convert the values of load_values() to doubles in place, each rounded once. */
static void to_doubles(const em_part *part, size_t count, em_values *values) {
    switch (em_class_of(part->kind)) {
    case EM_CLASS_INT:
        for (size_t i = 0; i < count; i++) {
            values->floats[i] = (double)values->ints[i];
        }
        break;
    case EM_CLASS_UINT:
        for (size_t i = 0; i < count; i++) {
            values->floats[i] = (double)values->words[i];
        }
        break;
    case EM_CLASS_WIDE:
        for (size_t i = 0; i < count; i++) {
            const bool present = values->all_valid || values->valid[i];
            const double value =
                present ? em_decimal_to_double(values->wides[i], part->param) : 0.0;
            values->floats[i] = value;
        }
        break;
    default:
        break;
    }
}

double em_value_as_double(const em_column *column, size_t row, int32_t scale) {
    const em_part part = {.kind = column->kind, .param = scale};
    em_values values;
    values.valid[0] = 1;
    load_values(column, row, 1, &values);
    to_doubles(&part, 1, &values);
    return values.floats[0];
}

/* Remove the null values and return how many are left. For batches whose rows share one record. */
static size_t keep_valid(em_values *values, size_t count) {
    if (values->all_valid) {
        return count;
    }
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        values->floats[kept] = values->floats[i];
        kept += values->valid[i];
    }
    return kept;
}

#define EACH_VALID(values, i)                                                                      \
    for (size_t i = 0; i < batch->count; i++)                                                      \
        if ((values)->all_valid || (values)->valid[i])

static void add_count(uint8_t *record, const em_part *part, uint64_t more) {
    uint64_t count;
    memcpy(&count, record + part->at, 8);
    count += more;
    memcpy(record + part->at, &count, 8);
}

static void count_rows(const em_part *part, const em_row_batch *batch) {
    if (batch->one) {
        add_count(batch->records[0], part, batch->count);
        return;
    }
    for (size_t i = 0; i < batch->count; i++) {
        add_count(batch->records[i], part, 1);
    }
}

static void count_values(const em_part *part, const em_row_batch *batch, em_values *values) {
    const em_column *column = &batch->columns->columns[part->column];
    load_validity(column, batch->start, batch->count, values);
    if (values->all_valid) {
        count_rows(part, batch);
        return;
    }
    for (size_t i = 0; i < batch->count; i++) {
        add_count(batch->records[i], part, values->valid[i]);
    }
}

static void sum_one(const em_part *part, size_t index, const em_row_batch *batch,
                    const em_values *values) {
    em_i128 total = 0;
    bool any = false;
    const enum em_class class = em_class_of(part->kind);
    EACH_VALID(values, i) {
        total += class == EM_CLASS_INT ? values->ints[i] : (em_i128)values->words[i];
        any = true;
    }
    if (any) {
        em_sum_put(batch->records[0], part, index, total, batch->heap);
    }
}

/* Add to the 64-bit sum in the record; false when em_sum_put() must do it. */
static inline bool sum_small(uint8_t *record, const em_part *part, size_t index, int64_t value) {
    int64_t small;
    uint8_t *state = record + part->at, *flags = em_flags(record, index);
    memcpy(&small, state, 8);
    if ((*flags & EM_HEAPED) || __builtin_add_overflow(small, value, &small)) {
        return false;
    }
    memcpy(state, &small, 8);
    *flags |= EM_SEEN;
    return true;
}

static void sum_values(const em_part *part, size_t index, const em_row_batch *batch,
                       const em_values *values) {
    const enum em_class class = em_class_of(part->kind);
    if (batch->one) {
        sum_one(part, index, batch, values);
    } else if (class == EM_CLASS_INT) {
        EACH_VALID(values, i) {
            if (!sum_small(batch->records[i], part, index, values->ints[i])) {
                em_sum_put(batch->records[i], part, index, values->ints[i], batch->heap);
            }
        }
    } else {
        EACH_VALID(values, i) {
            em_sum_put(batch->records[i], part, index, (em_i128)values->words[i], batch->heap);
        }
    }
}

/* Decimals are read one by one from the column: most of them, and of their sums, fit 64 bits. */
static void sum_decimals(const em_part *part, size_t index, const em_row_batch *batch,
                         em_values *values) {
    const em_column *column = &batch->columns->columns[part->column];
    const uint8_t *from = column->values + (column->offset + batch->start) * 16;
    load_validity(column, batch->start, batch->count, values);
    EACH_VALID(values, i) {
        const em_i128 value = em_load_i128(from + i * 16);
        if (value != (int64_t)value || !sum_small(batch->records[i], part, index, (int64_t)value)) {
            em_sum_put(batch->records[i], part, index, value, batch->heap);
        }
    }
}

static void sum_floats(const em_part *part, size_t index, const em_row_batch *batch,
                       em_values *values) {
    to_doubles(part, batch->count, values);
    const bool squares = part->op == EM_FLOAT_SQUARES;
    if (batch->one) {
        const size_t kept = keep_valid(values, batch->count);
        em_float_sum sum = EM_FLOAT_EMPTY;
        if (squares) {
            em_float_sum_add_squares(&sum, values->floats, kept);
        } else {
            em_float_sum_add(&sum, values->floats, kept);
        }
        if (kept > 0) {
            em_float_put_sum(batch->records[0], part, index, &sum, batch->heap);
        }
        return;
    }
    EACH_VALID(values, i) {
        double parts[2] = {values->floats[i]};
        const size_t part_count = squares ? em_square(values->floats[i], parts) : 1;
        for (size_t k = 0; k < part_count; k++) {
            em_float_put(batch->records[i], part, index, parts[k], batch->heap);
        }
    }
}

/* Normalise zeros and NaNs, so that equal values have equal bytes. */
static void normalise_floats(size_t count, em_values *values) {
    for (size_t i = 0; i < count; i++) {
        const double value = values->floats[i] + 0.0;
        values->floats[i] = value != value ? (double)__builtin_nan("") : value;
    }
}

static const uint8_t *text_at(const em_column *column, size_t row, size_t *bytes) {
    const int32_t *ends = column->ends + column->offset + row;
    *bytes = (size_t)(ends[1] - ends[0]);
    return column->values + ends[0];
}

static const uint8_t *value_at(const em_part *part, const em_values *values, size_t i) {
    return em_class_of(part->kind) == EM_CLASS_WIDE ? (const uint8_t *)&values->wides[i]
                                                    : (const uint8_t *)&values->words[i];
}

static void keep_values(const em_part *part, size_t index, const em_row_batch *batch,
                        em_values *values) {
    const em_column *column = &batch->columns->columns[part->column];
    const bool text = em_class_of(part->kind) == EM_CLASS_TEXT;
    if (em_class_of(part->kind) == EM_CLASS_FLOAT && part->op <= EM_MAX) {
        normalise_floats(batch->count, values);
    }
    const bool any = em_keeps_null(part);
    for (size_t i = 0; i < batch->count; i++) {
        const bool valid = values->all_valid || values->valid[i];
        if (!valid && any) {
            em_null_put(batch->records[i], part, index, batch->sequence + i);
        }
        if (!valid) {
            continue;
        }
        size_t bytes = 0;
        const uint8_t *at = text ? text_at(column, batch->start + i, &bytes) : NULL;
        em_value_put(batch->records[i], part, index, batch->sequence + i,
                     text ? NULL : value_at(part, values, i), at, bytes, batch->heap);
    }
}

static void sketch_values(const em_part *part, size_t index, const em_row_batch *batch,
                          const em_values *values) {
    const em_column *column = &batch->columns->columns[part->column];
    const enum em_class class = em_class_of(part->kind);
    EACH_VALID(values, i) {
        size_t bytes = class == EM_CLASS_WIDE ? 16 : 8;
        const uint8_t *at = class == EM_CLASS_TEXT ? text_at(column, batch->start + i, &bytes)
                                                   : value_at(part, values, i);
        const uint32_t entry = em_hll_entry(em_value_hash(class, at, bytes), part->param);
        em_hll_put(batch->records[i], part, index, entry, batch->heap);
    }
}

static bool merge_states(const em_part *part, size_t index, const em_row_batch *batch,
                         const em_values *values) {
    const em_column *column = &batch->columns->columns[part->column];
    EACH_VALID(values, i) {
        size_t bytes;
        const uint8_t *at = text_at(column, batch->start + i, &bytes);
        em_float_sum sum;
        if (part->op == EM_HLL_MERGE) {
            if (!em_hll_put_bytes(batch->records[i], part, index, at, bytes, batch->heap)) {
                return false;
            }
        } else if (bytes != EM_FLOAT_STATE_BYTES || !em_float_load(at, &sum)) {
            return false;
        } else {
            em_float_put_sum(batch->records[i], part, index, &sum, batch->heap);
        }
    }
    return true;
}

static bool accumulate_part(const em_part *part, size_t index, const em_row_batch *batch,
                            em_values *values) {
    if (part->op == EM_COUNT_ROWS) {
        count_rows(part, batch);
        return true;
    }
    if (part->op == EM_COUNT) {
        count_values(part, batch, values);
        return true;
    }
    if (part->op == EM_SUM && em_class_of(part->kind) == EM_CLASS_WIDE) {
        sum_decimals(part, index, batch, values);
        return true;
    }
    const em_column *column = &batch->columns->columns[part->column];
    load_values(column, batch->start, batch->count, values);
    switch (part->op) {
    case EM_COUNT_SUM:
        EACH_VALID(values, i) {
            add_count(batch->records[i], part, values->words[i]);
        }
        return true;
    case EM_SUM:
        sum_values(part, index, batch, values);
        return true;
    case EM_FLOAT_SUM:
    case EM_FLOAT_SQUARES:
        sum_floats(part, index, batch, values);
        return true;
    case EM_HLL:
        sketch_values(part, index, batch, values);
        return true;
    case EM_FLOAT_MERGE:
    case EM_HLL_MERGE:
        return merge_states(part, index, batch, values);
    default:
        keep_values(part, index, batch, values);
        return true;
    }
}

bool em_accumulate(const em_layout *layout, const em_row_batch *batch) {
    em_values values;
    for (uint32_t i = 0; i < layout->count; i++) {
        const em_part *part = &layout->parts[i];
        const bool filled_later = part->column == EM_NO_COLUMN && part->op != EM_COUNT_ROWS;
        if (!filled_later && !accumulate_part(part, i, batch, &values)) {
            return false;
        }
    }
    return true;
}
