/* A merge join that copies only its output; Python moves a window over the right side. */
#include "merge_join.h"

static bool is_null(const uint8_t *row) {
    return em_row_key_bytes(row) == 0;
}

/* Whether the row at `at` may follow the row at `before`; rows without a key may be anywhere. */
static bool in_order(const uint8_t *block, size_t size, size_t before, size_t at) {
    return em_row_at(block, size, before, false) == NULL || is_null(block + before) ||
           is_null(block + at) || em_compare_keys(block + before, block + at) <= 0;
}

size_t em_key_run(const uint8_t *block, size_t size, size_t at, const uint8_t *key,
                  uint32_t key_bytes) {
    while (at < size) {
        const uint8_t *row = em_row_at(block, size, at, false);
        if (row == NULL) {
            return SIZE_MAX;
        }
        if (em_row_key_bytes(row) != key_bytes || memcmp(em_row_key(row), key, key_bytes) != 0) {
            break;
        }
        at += em_row_bytes(row);
    }
    return at;
}

size_t em_sorted_run(const uint8_t *block, size_t size, size_t at, size_t limit, const uint8_t *key,
                     uint32_t key_bytes, size_t *rows, size_t *last) {
    const size_t start = at;
    for (*rows = 0; at < size; ++*rows) {
        const uint8_t *row = em_row_at(block, size, at, false);
        if (row == NULL) {
            return SIZE_MAX;
        }
        if (is_null(row) || (at > start && at - start + em_row_bytes(row) > limit) ||
            em_compare_texts(key, key_bytes, em_row_key(row), em_row_key_bytes(row)) > 0) {
            break;
        }
        *last = at;
        key = em_row_key(row);
        key_bytes = em_row_key_bytes(row);
        at += em_row_bytes(row);
    }
    return at;
}

static bool copy_unmatched(const uint8_t *row, em_join_output *rest) {
    const uint32_t bytes = em_row_bytes(row);
    if (bytes > rest->size - rest->used) {
        return false;
    }
    memcpy(rest->memory + rest->used, row, bytes);
    rest->used += bytes;
    rest->rows++;
    return true;
}

/* How the next right row compares to a left row: no right row has its key, one has, or the join
 * must stop. */
enum match_state { BELOW, EQUAL, STOPPED };

/* Skip right rows whose key is less than the left row's. */
static enum match_state skip_lesser(em_merge_join *merge, const uint8_t *row, const uint8_t *right,
                                    size_t right_size, em_join_output *rest,
                                    enum em_merge_stop *stop) {
    while (merge->right_at < right_size) {
        const uint8_t *other = em_row_at(right, right_size, merge->right_at, false);
        if (other == NULL || !in_order(right, right_size, merge->right_last, merge->right_at)) {
            *stop = other == NULL ? EM_MERGE_DAMAGED : EM_MERGE_UNSORTED;
            return STOPPED;
        }
        if (merge->right_nulls && !is_null(other) && merge->right_last != SIZE_MAX &&
            em_compare_keys(right + merge->right_last, other) == 0) {
            *stop = EM_MERGE_UNSORTED; /* rows with equal keys must be adjacent */
            return STOPPED;
        }
        const int order = is_null(other) ? -1 : em_compare_keys(other, row);
        if (order >= 0) {
            return order == 0 ? EQUAL : BELOW;
        }
        const bool matched = merge->right_at < merge->group_end;
        if (!matched && (merge->flags & EM_JOIN_MARK) && !copy_unmatched(other, rest)) {
            *stop = EM_MERGE_REST;
            return STOPPED;
        }
        if (is_null(other)) {
            merge->right_nulls = merge->right_keyed;
        } else {
            merge->right_keyed = true;
            merge->right_nulls = false;
            merge->right_last = merge->right_at;
        }
        merge->right_at += em_row_bytes(other);
    }
    if (merge->right_ended) {
        return BELOW;
    }
    *stop = EM_MERGE_RIGHT;
    return STOPPED;
}

enum em_walk em_mark_matched(uint8_t *block, size_t size, size_t *at, const uint8_t *rest,
                             size_t rest_size, size_t *rest_at, bool rest_ended,
                             const uint8_t *last, uint32_t last_bytes) {
    while (*at < size && (rest_ended || *rest_at < rest_size)) {
        uint8_t *row = block + *at;
        if (em_row_at(block, size, *at, false) == NULL) {
            return EM_WALK_DAMAGED;
        }
        if (em_compare_texts(em_row_key(row), em_row_key_bytes(row), last, last_bytes) > 0) {
            return EM_WALK_FULL;
        }
        const bool compares = *rest_at < rest_size;
        const uint8_t *unmatched = compares ? em_row_at(rest, rest_size, *rest_at, false) : NULL;
        if (compares && unmatched == NULL) {
            return EM_WALK_DAMAGED;
        }
        *at += em_row_bytes(row);
        if (unmatched != NULL && em_compare_keys(unmatched, row) == 0) {
            *rest_at += em_row_bytes(unmatched);
        } else {
            em_store32(row + 4, em_row_key_bytes(row) | EM_MATCHED);
        }
    }
    return EM_WALK_ON;
}

/* Write a left row with each right row of its key. */
static bool write_pairs(em_merge_join *merge, const uint8_t *row, const uint8_t *right,
                        size_t right_size, em_join_output *out, enum em_merge_stop *stop) {
    if (merge->group_end <= merge->right_at) {
        const uint8_t *first = right + merge->right_at;
        const size_t end = em_key_run(right, right_size, merge->right_at, em_row_key(first),
                                      em_row_key_bytes(first));
        if (end == SIZE_MAX || (end == right_size && !merge->right_ended)) {
            *stop = end == SIZE_MAX ? EM_MERGE_DAMAGED : EM_MERGE_RIGHT;
            return false;
        }
        merge->group_end = end;
    }
    if (!merge->inside) {
        merge->inside = true;
        merge->inner = merge->right_at;
    }
    while (merge->inner < merge->group_end) {
        const uint8_t *other = em_row_at(right, right_size, merge->inner, false);
        if (other == NULL) {
            *stop = EM_MERGE_DAMAGED;
            return false;
        }
        const bool numbered = (merge->flags & EM_JOIN_RIGHT_SEQUENCED) != 0;
        if (!em_write_joined(out, em_side_of(row, false), em_side_of(other, numbered))) {
            *stop = EM_MERGE_OUT;
            return false;
        }
        merge->inner += em_row_bytes(other);
    }
    merge->inside = false;
    return true;
}

enum em_merge_stop em_merge_join_rows(em_merge_join *merge, const uint8_t *left, size_t left_size,
                                      const uint8_t *right, size_t right_size, em_join_output *out,
                                      em_join_output *rest) {
    const em_side absent = em_absent_side(true, false);
    enum em_merge_stop stop = EM_MERGE_LEFT;
    while (merge->left_at < left_size) {
        const uint8_t *row = em_row_at(left, left_size, merge->left_at, false);
        if (row == NULL || !in_order(left, left_size, merge->left_last, merge->left_at)) {
            return row == NULL ? EM_MERGE_DAMAGED : EM_MERGE_UNSORTED;
        }
        enum match_state state = BELOW;
        if (!is_null(row)) {
            state = skip_lesser(merge, row, right, right_size, rest, &stop);
        }
        if (state == STOPPED) {
            return stop;
        }
        if (state == EQUAL && (merge->flags & EM_JOIN_PAIRS)) {
            if (!write_pairs(merge, row, right, right_size, out, &stop)) {
                return stop;
            }
        } else if (merge->flags & (state == EQUAL ? EM_JOIN_MATCHED : EM_JOIN_UNMATCHED)) {
            if (!em_write_joined(out, em_side_of(row, false), absent)) {
                return EM_MERGE_OUT;
            }
        }
        if (!is_null(row)) {
            merge->left_last = merge->left_at;
        }
        merge->left_at += em_row_bytes(row);
    }
    return EM_MERGE_LEFT;
}
