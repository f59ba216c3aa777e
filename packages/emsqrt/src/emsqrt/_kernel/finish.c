#include "finish.h"

#include <math.h>

#include "combine.h"

static bool is_count(enum em_part_op op) {
    return op == EM_COUNT_ROWS || op == EM_COUNT || op == EM_COUNT_SUM;
}

static bool is_floats(enum em_part_op op) {
    return op == EM_FLOAT_SUM || op == EM_FLOAT_SQUARES || op == EM_FLOAT_MERGE;
}

static bool is_sketch(enum em_part_op op) {
    return op == EM_HLL || op == EM_HLL_MERGE;
}

static enum em_kind state_kind(const em_part *part) {
    return is_count(part->op)    ? EM_I64
           : part->op == EM_SUM  ? EM_DECIMAL
           : is_floats(part->op) ? EM_BYTES
           : is_sketch(part->op) ? EM_BYTES
                                 : part->kind;
}

static bool output_fits(const em_output *output, const em_layout *layout) {
    const uint32_t reads = output->op == EM_OUT_MEAN                                      ? 2
                           : output->op == EM_OUT_VARIANCE || output->op == EM_OUT_STDDEV ? 3
                                                                                          : 1;
    if (layout->count < reads || output->part > layout->count - reads) {
        return false;
    }
    const em_part *part = &layout->parts[output->part];
    switch (output->op) {
    case EM_OUT_STATE:
        return output->kind == state_kind(part);
    case EM_OUT_INTEGER:
        return part->op == EM_SUM && (output->kind == EM_I64 || output->kind == EM_U64);
    case EM_OUT_FLOAT:
        return is_floats(part->op) && output->kind == EM_F64;
    case EM_OUT_MEAN:
        return (is_floats(part->op) || part->op == EM_SUM) && is_count(part[1].op) &&
               output->kind == EM_F64;
    case EM_OUT_VARIANCE:
    case EM_OUT_STDDEV:
        return is_floats(part->op) && is_floats(part[1].op) && is_count(part[2].op) &&
               output->kind == EM_F64;
    case EM_OUT_ESTIMATE:
        return is_sketch(part->op) && output->kind == EM_I64;
    default:
        return false;
    }
}

bool em_finisher_check(const em_finisher *finisher) {
    for (size_t i = 0; i < finisher->output_count; i++) {
        if (!output_fits(&finisher->outputs[i], &finisher->layout)) {
            return false;
        }
    }
    return true;
}

static bool read_parts(const em_finisher *finisher, const uint8_t *row) {
    const uint8_t *in = em_row_payload(row), *end = row + em_row_bytes(row);
    for (uint32_t i = 0; i < finisher->layout.count && in != NULL; i++) {
        in = em_packed_read_part(&finisher->layout.parts[i], in, end, &finisher->packed[i]);
    }
    return in == end;
}

static size_t output_text(const em_output *output, const em_part *part, const em_packed *packed) {
    if (!em_is_text(output->kind) || !packed->seen) {
        return 0;
    }
    return is_floats(part->op)                    ? EM_FLOAT_STATE_BYTES
           : !is_sketch(part->op) && packed->null ? 0
                                                  : packed->text_bytes;
}

/* Add the length of one row's texts to its arrays; false when the row is malformed. */
static bool measure(em_finisher *finisher, const uint8_t *row, bool texts) {
    const uint8_t *at = em_row_key(row), *end = em_row_payload(row);
    for (size_t i = 0; i < finisher->keys.count && at != NULL; i++) {
        size_t text_bytes;
        at = em_key_skip(&finisher->keys.parts[i], finisher->arrays[i].kind, at, end, &text_bytes);
        finisher->arrays[i].text_bytes += text_bytes;
    }
    if (at != end || (texts && !read_parts(finisher, row))) {
        return false;
    }
    for (size_t i = 0; texts && i < finisher->output_count; i++) {
        const em_output *output = &finisher->outputs[i];
        finisher->arrays[finisher->keys.count + i].text_bytes += output_text(
            output, &finisher->layout.parts[output->part], &finisher->packed[output->part]);
    }
    return true;
}

static size_t text_total(const em_finisher *finisher) {
    size_t total = 0;
    for (size_t i = 0; i < finisher->keys.count + finisher->output_count; i++) {
        total += finisher->arrays[i].text_bytes;
    }
    return total;
}

static void put_text(em_array *array, size_t row, const uint8_t *text, size_t bytes) {
    if (bytes > 0) {
        memcpy(em_array_text(array, row), text, bytes);
    }
    em_array_end_text(array, row, bytes);
}

static enum em_finish_fault put_state(const em_part *part, const em_packed *packed, em_array *array,
                                      size_t row) {
    uint8_t state[EM_FLOAT_STATE_BYTES];
    if (is_count(part->op)) {
        em_array_put_word(array, row, packed->count);
    } else if (!packed->seen) {
        em_array_put_null(array, row);
    } else if (part->op == EM_SUM) {
        em_i128 value;
        if (!em_sum_narrow(&packed->sum, &value) || !em_fits_decimal(value)) {
            return EM_FINISH_OVERFLOW;
        }
        em_array_put_fixed(array, row, (const uint8_t *)&value);
    } else if (is_floats(part->op)) {
        const em_float_sum sum = em_packed_floats(packed);
        em_float_store(state, &sum);
        put_text(array, row, state, sizeof state);
    } else if (part->op >= EM_MIN && part->op <= EM_LAST && packed->null) {
        em_array_put_null(array, row);
    } else if (em_is_text(array->kind)) {
        put_text(array, row, packed->text, packed->text_bytes);
    } else if (array->kind == EM_F32) {
        double value;
        memcpy(&value, packed->value, sizeof value);
        const float narrow = (float)value;
        uint32_t bits;
        memcpy(&bits, &narrow, sizeof bits);
        em_array_put_word(array, row, bits);
    } else {
        em_array_put_fixed(array, row, packed->value);
    }
    return EM_FINISH_OK;
}

static enum em_finish_fault put_integer(const em_packed *packed, em_array *array, size_t row) {
    em_i128 value;
    const bool narrow = em_sum_narrow(&packed->sum, &value);
    const em_i128 low = array->kind == EM_U64 ? 0 : INT64_MIN;
    const em_i128 high = array->kind == EM_U64 ? (em_i128)UINT64_MAX : INT64_MAX;
    if (!narrow || value < low || value > high) {
        return EM_FINISH_OVERFLOW;
    }
    em_array_put_word(array, row, (uint64_t)value);
    return EM_FINISH_OK;
}

static enum em_finish_fault mean_of(const em_output *output, const em_part *part,
                                    const em_packed *packed, double *mean) {
    double total;
    if (is_floats(part->op)) {
        total = em_packed_float_value(packed);
    } else {
        em_i128 value;
        if (!em_sum_narrow(&packed->sum, &value) || !em_fits_decimal(value)) {
            return EM_FINISH_OVERFLOW;
        }
        total = em_decimal_to_double(value, output->scale);
    }
    *mean = total / (double)packed[1].count;
    return EM_FINISH_OK;
}

static double variance_of(const em_packed *packed) {
    const em_float_sum total = em_packed_floats(&packed[0]);
    const em_float_sum squares = em_packed_floats(&packed[1]);
    return em_float_variance(packed[2].count, &total, &squares);
}

static enum em_finish_fault put_result(const em_output *output, const em_part *part,
                                       const em_packed *packed, em_array *array, size_t row) {
    double value = 0;
    enum em_finish_fault fault = EM_FINISH_OK;
    if (output->op == EM_OUT_ESTIMATE) {
        const int64_t estimate =
            packed->seen ? em_hll_estimate_bytes(packed->text, packed->text_bytes) : 0;
        em_array_put_word(array, row, (uint64_t)estimate);
        return estimate < 0 ? EM_FINISH_DAMAGED : EM_FINISH_OK;
    }
    const bool is_variance = output->op == EM_OUT_VARIANCE || output->op == EM_OUT_STDDEV;
    if (!packed->seen || (is_variance && packed[2].count < 2)) {
        em_array_put_null(array, row);
        return EM_FINISH_OK;
    }
    switch (output->op) {
    case EM_OUT_INTEGER:
        return put_integer(packed, array, row);
    case EM_OUT_FLOAT:
        value = em_packed_float_value(packed);
        break;
    case EM_OUT_MEAN:
        fault = mean_of(output, part, packed, &value);
        break;
    default:
        value = variance_of(packed);
        value = output->op == EM_OUT_STDDEV ? sqrt(value) : value;
    }
    em_array_put_double(array, row, value);
    return fault;
}

static void fill(em_finisher *finisher, const uint8_t *row_at, size_t row) {
    const uint8_t *at = em_row_key(row_at);
    for (size_t i = 0; i < finisher->keys.count; i++) {
        at = em_key_decode(&finisher->keys.parts[i], at, &finisher->arrays[i], row);
    }
    if (!read_parts(finisher, row_at)) {
        finisher->fault = EM_FINISH_DAMAGED;
        return;
    }
    for (size_t i = 0; i < finisher->output_count && finisher->fault == EM_FINISH_OK; i++) {
        const em_output *output = &finisher->outputs[i];
        const em_part *part = &finisher->layout.parts[output->part];
        const em_packed *packed = &finisher->packed[output->part];
        em_array *array = &finisher->arrays[finisher->keys.count + i];
        finisher->fault = output->op == EM_OUT_STATE ? put_state(part, packed, array, row)
                                                     : put_result(output, part, packed, array, row);
        finisher->fault_output = i;
    }
}

/* Count the rows that fit, and the text of each array; 0 with a fault when a row is malformed. */
static size_t count_rows(em_finisher *finisher, const uint8_t *rows, size_t bytes,
                         size_t *consumed) {
    const size_t array_count = finisher->keys.count + finisher->output_count;
    em_array *arrays = finisher->arrays;
    bool texts = false, any = false;
    for (size_t i = 0; i < array_count; i++) {
        arrays[i].text_bytes = 0;
        any |= em_is_text(arrays[i].kind);
        texts |= i >= finisher->keys.count && em_is_text(arrays[i].kind);
    }
    const size_t most = em_arrays_rows(arrays, array_count, finisher->memory_bytes);
    size_t count = 0, at = 0;
    while (at < bytes && count < most) {
        if (!em_row_is_whole(rows + at, bytes - at) || !measure(finisher, rows + at, texts)) {
            finisher->fault = EM_FINISH_DAMAGED;
            return 0;
        }
        const size_t text = any ? text_total(finisher) : 0;
        if (any && (text > INT32_MAX || em_arrays_bound(arrays, array_count, count + 1, text) >
                                            finisher->memory_bytes)) {
            break;
        }
        at += em_row_bytes(rows + at);
        count++;
    }
    *consumed = at;
    return count;
}

size_t em_finish(em_finisher *finisher, const uint8_t *rows, size_t bytes, size_t *consumed) {
    const size_t array_count = finisher->keys.count + finisher->output_count;
    finisher->fault = EM_FINISH_OK;
    const size_t count = count_rows(finisher, rows, bytes, consumed);
    if (count == 0) {
        finisher->fault = finisher->fault != EM_FINISH_OK ? finisher->fault
                          : bytes > 0                     ? EM_FINISH_NO_ROOM
                                                          : EM_FINISH_OK;
        return 0;
    }
    em_arrays_place(finisher->arrays, array_count, count, finisher->memory);
    const uint8_t *row = rows;
    for (size_t i = 0; i < count && finisher->fault == EM_FINISH_OK; i++) {
        fill(finisher, row, i);
        row += em_row_bytes(row);
    }
    return count;
}
