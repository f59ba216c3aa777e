/* Peers and partitions of sorted rows, and the bounds of RANGE frames. */
#include "window.h"

#include "keys.h"
#include "rows.h"

/* Return the bytes of a key's first columns, or SIZE_MAX when the key is malformed. */
static size_t prefix_bytes(const uint8_t *row, const uint8_t *kinds, size_t kind_count) {
    const em_key_part ascending = {0, false, false};
    const uint8_t *start = em_row_key(row), *at = start;
    const uint8_t *end = start + em_row_key_bytes(row);
    size_t text_bytes;
    for (size_t i = 0; i < kind_count && at != NULL; i++) {
        at = em_key_skip(&ascending, (enum em_kind)kinds[i], at, end, &text_bytes);
    }
    return at == NULL ? SIZE_MAX : (size_t)(at - start);
}

static bool is_whole(const uint8_t *row, size_t bytes) {
    return bytes >= EM_ROW_HEAD_BYTES && em_row_bytes(row) <= bytes &&
           em_row_bytes(row) >= EM_ROW_HEAD_BYTES &&
           em_row_key_bytes(row) <= em_row_bytes(row) - EM_ROW_HEAD_BYTES;
}

size_t em_row_changes(const uint8_t *block, size_t bytes, size_t start, size_t rows,
                      const uint8_t *kinds, size_t kind_count, const uint8_t *previous,
                      uint8_t *flags) {
    size_t at = start, last = start;
    for (size_t i = 0; i < rows; i++) {
        const uint8_t *row = block + at;
        if (at > bytes || !is_whole(row, bytes - at)) {
            return SIZE_MAX;
        }
        flags[i] = EM_NEW_PEERS | EM_NEW_PARTITION;
        if (previous != NULL && em_compare_keys(previous, row) == 0) {
            flags[i] = 0;
        } else if (previous != NULL) {
            const size_t prefix = prefix_bytes(row, kinds, kind_count);
            if (prefix == SIZE_MAX) {
                return SIZE_MAX;
            }
            if (prefix <= em_row_key_bytes(previous) &&
                memcmp(em_row_key(previous), em_row_key(row), prefix) == 0) {
                flags[i] = EM_NEW_PEERS;
            }
        }
        previous = row;
        last = at;
        at += em_row_bytes(row);
    }
    return last;
}

static em_i128 double_order(double value) {
    uint64_t bits = em_float_bits(value + 0.0);
    if (value != value) {
        bits = UINT64_C(0x7FF8) << 48;
    }
    const uint64_t sign = bits >> 63;
    return sign ? -(em_i128)(bits << 1 >> 1) - 1 : (em_i128)bits;
}

em_i128 em_value_order(const em_column *column, size_t row) {
    const size_t at = column->offset + row;
    const uint8_t *value = column->values + at * em_width(column->kind);
    int16_t two;
    int32_t four;
    int64_t eight;
    uint16_t plain_two;
    uint32_t plain_four;
    uint64_t plain_eight;
    float half;
    double whole;
    switch (column->kind) {
    case EM_BOOL:
        return em_bit(column->values, at);
    case EM_I8:
        return (int8_t)*value;
    case EM_U8:
        return *value;
    case EM_I16:
        memcpy(&two, value, sizeof two);
        return two;
    case EM_U16:
        memcpy(&plain_two, value, sizeof plain_two);
        return plain_two;
    case EM_I32:
        memcpy(&four, value, sizeof four);
        return four;
    case EM_U32:
        memcpy(&plain_four, value, sizeof plain_four);
        return plain_four;
    case EM_I64:
        memcpy(&eight, value, sizeof eight);
        return eight;
    case EM_U64:
        memcpy(&plain_eight, value, sizeof plain_eight);
        return plain_eight;
    case EM_F32:
        memcpy(&half, value, sizeof half);
        return double_order((double)half);
    case EM_F64:
        memcpy(&whole, value, sizeof whole);
        return double_order(whole);
    case EM_DECIMAL:
        return em_load_i128(value);
    default:
        return 0;
    }
}

/* Whether the row at the bound sorts before `target`, so that the bound moves on. */
static bool is_before(const em_range_bound *bound, const em_column *keys, size_t row,
                      em_i128 target) {
    if (!em_is_valid(keys, row)) {
        return bound->nulls_first;
    }
    const em_i128 key = em_value_order(keys, row);
    if (key == target) {
        return bound->is_end;
    }
    return bound->descending ? key > target : key < target;
}

enum em_window_stop em_range_bound_run(em_range_bound *bound, const em_chunk *now,
                                       const int64_t *partitions, size_t *row,
                                       const em_range_rows *ahead, int64_t *out) {
    for (; *row < now->rows; ++*row) {
        const int64_t partition = partitions[*row];
        if (!em_is_valid(&now->column, *row)) {
            out[*row] = -1;
            continue;
        }
        const em_i128 key = em_value_order(&now->column, *row), offset = bound->offset;
        const em_i128 target = bound->descending ? key - offset : key + offset;
        bound->at = bound->at < partition ? partition : bound->at;
        for (;;) {
            const int64_t place = bound->at - ahead->keys.first;
            if (place < 0 || (size_t)place >= ahead->keys.rows) {
                if (place >= 0 && ahead->last) {
                    break;
                }
                return EM_WINDOW_HIGH;
            }
            const bool other = bound->at > partition && (ahead->flags[place] & EM_NEW_PARTITION);
            if (other || !is_before(bound, &ahead->keys.column, (size_t)place, target)) {
                break;
            }
            bound->at++;
        }
        out[*row] = bound->at;
    }
    return EM_WINDOW_DONE;
}
