/* Exact sums, means and counts of frames: add the rows that enter, subtract the rows that leave. */
#include "window.h"

void em_frame_sum_clear(em_frame_sum *sum) {
    sum->count = 0;
    memset(&sum->sum, 0, sizeof sum->sum);
    if (sum->floats.top >= 0) {
        memset(&sum->floats, 0, sizeof sum->floats);
    }
    sum->floats.pos_inf = sum->floats.neg_inf = sum->floats.nan = 0;
    sum->floats.top = -1;
}

static void move_float(em_sliding_floats *floats, double value, bool enters) {
    const uint64_t bits = em_float_bits(value), step = enters ? 1 : UINT64_MAX;
    if (em_float_is_special(bits)) {
        const bool nan = bits << 12 != 0;
        floats->nan += nan ? step : 0;
        floats->pos_inf += !nan && bits >> 63 == 0 ? step : 0;
        floats->neg_inf += !nan && bits >> 63 == 1 ? step : 0;
        return;
    }
    if (bits << 1 == 0) {
        return;
    }
    const em_float_cut cut = em_float_cut_of(bits);
    for (int i = 0; i < 3; i++) {
        floats->bins[cut.bin + i] += enters ? cut.pieces[i] : -cut.pieces[i];
    }
    floats->tops[cut.top] += step;
    floats->top = floats->top < cut.top ? cut.top : floats->top;
    while (floats->top >= 0 && floats->tops[floats->top] == 0) {
        floats->top--;
    }
}

static double floats_value(const em_sliding_floats *floats) {
    em_float_sum sum = {.top = floats->top,
                        .pos_inf = floats->pos_inf,
                        .neg_inf = floats->neg_inf,
                        .nan = floats->nan};
    for (int i = 0; i < 3 && i <= floats->top; i++) {
        sum.sums[i] = floats->bins[floats->top - i];
    }
    return em_float_value(&sum);
}

static double float_at(const em_column *column, size_t row) {
    if (column->kind == EM_F32) {
        float half;
        memcpy(&half, column->values + (column->offset + row) * sizeof half, sizeof half);
        return (double)half;
    }
    double value;
    memcpy(&value, column->values + (column->offset + row) * sizeof value, sizeof value);
    return value;
}

static bool is_float(enum em_kind kind) {
    return kind == EM_F32 || kind == EM_F64;
}

static void move(em_frame_sum *sum, const em_column *column, size_t row, bool enters) {
    if (!em_is_valid(column, row)) {
        return;
    }
    sum->count += enters ? 1 : -1;
    if (sum->op == EM_FRAME_COUNT) {
        return;
    }
    if (is_float(sum->kind)) {
        move_float(&sum->floats, float_at(column, row), enters);
    } else {
        const em_i128 value = em_value_order(column, row);
        const em_sum moved = em_sum_of(enters ? value : (em_i128)(0 - (em_u128)value));
        em_sum_add(&sum->sum, &moved);
    }
}

/* Write one row's result; false when it does not fit its type. */
static bool put(const em_frame_sum *sum, const em_frame_out *out, size_t row) {
    if (sum->op == EM_FRAME_COUNT) {
        memcpy(out->values + 8 * row, &sum->count, 8);
        return true;
    }
    if (sum->count == 0) {
        return true;
    }
    out->validity[row >> 3] |= (uint8_t)(1u << (row & 7));
    double result;
    if (is_float(sum->kind)) {
        result = floats_value(&sum->floats);
        result = sum->op == EM_FRAME_MEAN ? result / (double)sum->count : result;
        memcpy(out->values + 8 * row, &result, 8);
        return true;
    }
    em_i128 total;
    const bool fits = em_sum_narrow(&sum->sum, &total) && em_fits_decimal(total);
    if (sum->op == EM_FRAME_MEAN) {
        result = em_decimal_to_double(total, sum->scale) / (double)sum->count;
        memcpy(out->values + 8 * row, &result, 8);
        return fits;
    }
    if (sum->kind == EM_DECIMAL) {
        em_store_i128(out->values + 16 * row, total);
        return fits;
    }
    const uint64_t low = (uint64_t)total;
    memcpy(out->values + 8 * row, &low, 8);
    return sum->kind == EM_U64 ? fits && total >= 0 && total <= UINT64_MAX
                               : fits && total >= INT64_MIN && total <= INT64_MAX;
}

/* Move one end of the frame to row `to`; false when the chunk ends before it. */
static bool advance(em_frame_sum *sum, int64_t *at, int64_t to, const em_chunk *chunk,
                    bool enters) {
    while (*at < to) {
        const int64_t place = *at - chunk->first;
        if (place < 0 || (size_t)place >= chunk->rows) {
            return false;
        }
        const int64_t ends = chunk->first + (int64_t)chunk->rows, stop = to < ends ? to : ends;
        for (int64_t i = *at; i < stop; i++) {
            move(sum, &chunk->column, (size_t)(i - chunk->first), enters);
        }
        *at = stop;
    }
    return true;
}

enum em_window_stop em_frame_sum_run(em_frame_sum *sum, em_frames *frames, const em_chunk *high,
                                     const em_chunk *low, const em_frame_out *out) {
    for (; frames->row < frames->rows; frames->row++) {
        const size_t row = frames->row;
        if (frames->low[row] >= sum->high) {
            em_frame_sum_clear(sum);
            sum->low = sum->high = frames->low[row];
        }
        if (!advance(sum, &sum->low, frames->low[row], low, false)) {
            return EM_WINDOW_LOW;
        }
        if (!advance(sum, &sum->high, frames->high[row], high, true)) {
            return EM_WINDOW_HIGH;
        }
        if (!put(sum, out, row)) {
            return EM_WINDOW_FULL;
        }
    }
    return EM_WINDOW_DONE;
}
