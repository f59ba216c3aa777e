/* Joined rows: written as rows and as lines, and the joins that need no hash table: one side alone,
 * and the cross product. */
#include "join_rows.h"

const uint8_t *em_row_at(const uint8_t *block, size_t size, size_t at, bool sequenced) {
    const uint8_t *row = em_spilled_row_at(block, size, at, sequenced);
    return row == NULL || em_is_matched(row) ? NULL : row;
}

const uint8_t *em_spilled_row_at(const uint8_t *block, size_t size, size_t at, bool sequenced) {
    if (at > size || size - at < EM_ROW_HEAD_BYTES) {
        return NULL;
    }
    const uint8_t *row = block + at;
    const uint32_t bytes = em_row_bytes(row);
    const size_t needed =
        EM_ROW_HEAD_BYTES + (size_t)em_joined_key_bytes(row) + (sequenced ? EM_NUMBER_BYTES : 0);
    return bytes < needed || bytes > size - at || bytes >= EM_MATCHED ? NULL : row;
}

static bool has_null(const em_columns *columns, const em_key_spec *keys, size_t row) {
    for (size_t i = 0; i < keys->count; i++) {
        if (!em_is_valid(&columns->columns[keys->parts[i].column], row)) {
            return true;
        }
    }
    return false;
}

size_t em_pack_join_rows(const em_columns *columns, const em_key_spec *keys,
                         const em_payload *payload, const em_cut *cut, size_t *row, uint8_t *out,
                         size_t out_bytes) {
    const size_t fixed = em_key_fixed_bytes(keys, columns);
    size_t used = 0;
    for (; *row < columns->row_count; ++*row) {
        const bool keyed = !has_null(columns, keys, *row);
        const size_t key = !keyed ? 0 : fixed > 0 ? fixed : em_key_bytes(keys, columns, *row);
        const size_t bytes = EM_ROW_HEAD_BYTES + key + em_payload_bytes(payload, columns, *row);
        if (bytes > out_bytes - used || bytes >= EM_MATCHED) {
            break;
        }
        uint8_t *to = out + used;
        if (keyed) {
            em_key_encode(keys, columns, *row, to + EM_ROW_HEAD_BYTES);
        }
        uint8_t *text = to + EM_ROW_HEAD_BYTES + key;
        const em_span line = cut == NULL ? (em_span){0, 0} : columns->lines[*row];
        const uint8_t *end = cut == NULL
                                 ? em_payload_write(payload, columns, *row, text)
                                 : em_csv_cut(cut, columns->text + line.start, line.size, text);
        em_store32(to, (uint32_t)(end - to));
        em_store32(to + 4, (uint32_t)key);
        used += (size_t)(end - to);
    }
    return used;
}

em_side em_absent_side(bool is_right, bool sequenced) {
    static const uint8_t first[EM_NUMBER_BYTES] = {0};
    static const uint8_t last[EM_NUMBER_BYTES] = {255, 255, 255, 255, 255, 255, 255, 255};
    return (em_side){NULL, 0, !sequenced ? NULL : is_right ? first : last};
}

static uint8_t *put(uint8_t *to, const uint8_t *text, size_t bytes) {
    if (bytes > 0) {
        memcpy(to, text, bytes);
    }
    return to + bytes;
}

bool em_write_joined(em_join_output *out, em_side left, em_side right) {
    if (left.bytes == EM_ABSENT || right.bytes == EM_ABSENT) {
        return false; /* a row that is too short for its number */
    }
    const uint32_t left_number = left.number == NULL ? 0 : EM_NUMBER_BYTES;
    const uint32_t right_number = right.number == NULL ? 0 : EM_NUMBER_BYTES;
    const size_t bytes = EM_ROW_HEAD_BYTES + left_number + right_number + EM_JOINED_HEAD_BYTES +
                         (size_t)left.bytes + right.bytes;
    if (bytes > out->size - out->used || bytes >= EM_MATCHED) {
        return false;
    }
    uint8_t *to = out->memory + out->used;
    em_store32(to, (uint32_t)bytes);
    em_store32(to + 4, left_number + right_number);
    to = put(to + EM_ROW_HEAD_BYTES, left.number, left_number);
    to = put(to, right.number, right_number);
    em_store32(to, left.payload == NULL ? EM_ABSENT : left.bytes);
    em_store32(to + 4, right.payload == NULL ? EM_ABSENT : right.bytes);
    to = put(to + EM_JOINED_HEAD_BYTES, left.payload, left.bytes);
    put(to, right.payload, right.bytes);
    out->used += bytes;
    out->rows++;
    return true;
}

enum em_walk em_null_extend_rows(const uint8_t *block, size_t size, size_t *at, size_t *passed,
                                 bool is_right, em_sequenced sequenced, const uint8_t *bits,
                                 size_t first_bit, em_join_output *out) {
    const bool numbered = is_right ? sequenced.right : sequenced.left;
    const em_side absent = em_absent_side(!is_right, is_right ? sequenced.left : sequenced.right);
    while (*at < size) {
        const uint8_t *row = em_spilled_row_at(block, size, *at, numbered);
        if (row == NULL) {
            return EM_WALK_DAMAGED;
        }
        const size_t bit = first_bit + *passed;
        if (!em_is_matched(row) && (bits == NULL || !(bits[bit >> 3] >> (bit & 7) & 1))) {
            const em_side side = em_side_of(row, numbered);
            if (!em_write_joined(out, is_right ? absent : side, is_right ? side : absent)) {
                return EM_WALK_FULL;
            }
        }
        *at += em_row_bytes(row);
        ++*passed;
    }
    return EM_WALK_ON;
}

enum em_walk em_join_cross(const uint8_t *left, size_t left_size, size_t *left_at,
                           const uint8_t *right, size_t right_size, size_t *right_at,
                           em_sequenced sequenced, em_join_output *out) {
    while (*left_at < left_size) {
        const uint8_t *one = em_row_at(left, left_size, *left_at, sequenced.left);
        if (one == NULL) {
            return EM_WALK_DAMAGED;
        }
        while (*right_at < right_size) {
            const uint8_t *other = em_row_at(right, right_size, *right_at, sequenced.right);
            if (other == NULL) {
                return EM_WALK_DAMAGED;
            }
            if (!em_write_joined(out, em_side_of(one, sequenced.left),
                                 em_side_of(other, sequenced.right))) {
                return EM_WALK_FULL;
            }
            *right_at += em_row_bytes(other);
        }
        *right_at = 0;
        *left_at += em_row_bytes(one);
    }
    return EM_WALK_ON;
}

/* Split a joined row into its sides; false when it is not one. */
static bool open_joined(const uint8_t *block, size_t size, size_t at, em_side *left,
                        em_side *right) {
    const uint8_t *row = em_row_at(block, size, at, false);
    const uint32_t bytes = row == NULL ? 0 : em_row_payload_bytes(row);
    if (bytes < EM_JOINED_HEAD_BYTES) {
        return false;
    }
    const uint8_t *text = em_row_payload(row) + EM_JOINED_HEAD_BYTES;
    const uint32_t left_bytes = em_load32(text - 8), right_bytes = em_load32(text - 4);
    *left = left_bytes == EM_ABSENT ? (em_side){NULL, 0, NULL} : (em_side){text, left_bytes, NULL};
    *right = right_bytes == EM_ABSENT ? (em_side){NULL, 0, NULL}
                                      : (em_side){text + left->bytes, right_bytes, NULL};
    return (size_t)left->bytes + right->bytes == bytes - EM_JOINED_HEAD_BYTES;
}

enum em_walk em_join_side(const uint8_t *block, size_t size, size_t *at, bool is_right,
                          em_side absent, em_join_output *out) {
    while (*at < size) {
        em_side left, right;
        if (!open_joined(block, size, *at, &left, &right)) {
            return EM_WALK_DAMAGED;
        }
        const em_side wanted = is_right ? right : left;
        const em_side side = wanted.payload == NULL ? absent : wanted;
        const size_t bytes = EM_ROW_HEAD_BYTES + (size_t)side.bytes;
        if (bytes > out->size - out->used) {
            return EM_WALK_FULL;
        }
        uint8_t *to = out->memory + out->used;
        em_store32(to, (uint32_t)bytes);
        em_store32(to + 4, 0);
        put(to + EM_ROW_HEAD_BYTES, side.payload, side.bytes);
        out->used += bytes;
        out->rows++;
        *at += em_row_bytes(block + *at);
    }
    return EM_WALK_ON;
}

enum em_walk em_join_lines(const uint8_t *block, size_t size, size_t *at,
                           const em_line_parts *parts, em_join_output *out) {
    while (*at < size) {
        em_side left, right;
        if (!open_joined(block, size, *at, &left, &right)) {
            return EM_WALK_DAMAGED;
        }
        if (left.payload == NULL) {
            left = parts->left_absent;
        }
        if (right.payload == NULL || parts->left_only) {
            right = parts->right_absent;
        }
        const size_t line = (size_t)left.bytes + parts->separator.bytes + right.bytes + 1;
        if (line > out->size - out->used) {
            return EM_WALK_FULL;
        }
        uint8_t *to = put(out->memory + out->used, left.payload, left.bytes);
        to = put(to, parts->separator.payload, parts->separator.bytes);
        to = put(to, right.payload, right.bytes);
        *to = '\n';
        out->used += line;
        out->rows++;
        *at += em_row_bytes(block + *at);
    }
    return EM_WALK_ON;
}
