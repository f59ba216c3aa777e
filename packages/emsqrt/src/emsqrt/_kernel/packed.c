/* Pack states into as few bytes as they need, read them, and merge them into a record. */
#include "states.h"

static bool is_ordered(enum em_part_op op) {
    return op == EM_FIRST || op == EM_LAST;
}

static size_t value_bound(const em_part *part, const uint8_t *record) {
    if (em_class_of(part->kind) != EM_CLASS_TEXT) {
        return 1 + 10 + 1 + 24;
    }
    em_text_ref held;
    memcpy(&held, record + part->at + (is_ordered(part->op) ? 8 : 0), sizeof held);
    return 1 + 10 + 5 + (size_t)held.bytes;
}

size_t em_pack_bound(const em_layout *layout, const uint8_t *record, const em_heap *heap) {
    (void)heap;
    size_t bound = 8;
    for (uint32_t i = 0; i < layout->count; i++) {
        const em_part *part = &layout->parts[i];
        switch (part->op) {
        case EM_COUNT_ROWS:
        case EM_COUNT:
        case EM_COUNT_SUM:
            bound += 10;
            break;
        case EM_SUM:
            bound += 1 + 24;
            break;
        case EM_FLOAT_SUM:
        case EM_FLOAT_SQUARES:
        case EM_FLOAT_MERGE:
            bound += 1 + EM_FLOAT_STATE_BYTES;
            break;
        case EM_HLL:
        case EM_HLL_MERGE: {
            em_hll sketch;
            memcpy(&sketch, record + part->at, sizeof sketch);
            bound += 5 + EM_HLL_HEAD_BYTES +
                     (sketch.ref == 0        ? 0
                      : sketch.capacity == 0 ? (size_t)1 << part->param
                                             : 3 * (size_t)sketch.count);
            break;
        }
        default:
            bound += value_bound(part, record);
        }
    }
    return bound;
}

static uint8_t *pack_sum(const em_part *part, const uint8_t *record, uint8_t flags,
                         const em_heap *heap, uint8_t *out) {
    size_t size = 0;
    if (flags & EM_HEAPED) {
        uint32_t ref;
        em_sum sum;
        memcpy(&ref, record + part->at, sizeof ref);
        memcpy(&sum, em_heap_at(heap, ref), sizeof sum);
        size = em_pack_integer(out + 1, sum.limbs, 3);
    } else if (flags & EM_SEEN) {
        int64_t small;
        memcpy(&small, record + part->at, 8);
        size = em_pack_i64(out + 1, small);
    }
    *out = (uint8_t)size;
    return out + 1 + size;
}

static uint8_t *pack_floats(const em_part *part, const uint8_t *record, uint8_t flags,
                            const em_heap *heap, uint8_t *out) {
    if (!(flags & EM_SEEN)) {
        *out = EM_FLOATS_NONE;
        return out + 1;
    }
    if (flags & EM_HEAPED) {
        uint32_t ref;
        em_float_sum sum;
        memcpy(&ref, record + part->at, sizeof ref);
        memcpy(&sum, em_heap_at(heap, ref), sizeof sum);
        *out = EM_FLOATS_WHOLE;
        em_float_store(out + 1, &sum);
        return out + 1 + EM_FLOAT_STATE_BYTES;
    }
    em_float_bins bins;
    memcpy(&bins, record + part->at, sizeof bins);
    if (bins.adds == 1) { /* the pieces of one double: store the double itself */
        const double value = em_float_bins_value(&bins);
        *out = EM_FLOATS_ONE;
        memcpy(out + 1, &value, 8);
        return out + 9;
    }
    *out++ = EM_FLOATS_FEW;
    *out++ = (uint8_t)bins.above;
    for (int i = 0; i < 3; i++) {
        const size_t size = em_pack_i64(out + 1, bins.sums[i]);
        *out = (uint8_t)size;
        out += 1 + size;
    }
    return out;
}

static uint8_t *pack_value(const em_part *part, const uint8_t *record, uint8_t flags,
                           const em_heap *heap, uint8_t *out) {
    const uint8_t *state = record + part->at;
    *out++ = flags & (EM_SEEN | EM_IS_NULL);
    if (!(flags & EM_SEEN)) {
        return out;
    }
    if (is_ordered(part->op)) {
        uint64_t sequence;
        memcpy(&sequence, state, 8);
        out = em_put_varint(out, sequence);
        state += 8;
    }
    if (flags & EM_IS_NULL) {
        return out;
    }
    uint64_t words[2];
    size_t size;
    em_text_ref held;
    switch (em_class_of(part->kind)) {
    case EM_CLASS_FLOAT:
        memcpy(out, state, 8);
        return out + 8;
    case EM_CLASS_WIDE:
        memcpy(words, state, 16);
        size = em_pack_integer(out + 1, words, 2);
        break;
    case EM_CLASS_TEXT:
        memcpy(&held, state, sizeof held);
        out = em_put_varint(out, held.bytes);
        memcpy(out, em_heap_at(heap, held.ref), held.bytes);
        return out + held.bytes;
    default:
        memcpy(words, state, 8);
        size = em_pack_i64(out + 1, (int64_t)words[0]);
    }
    *out = (uint8_t)size;
    return out + 1 + size;
}

static uint8_t *pack_hll(const em_part *part, const uint8_t *record, uint8_t flags,
                         const em_heap *heap, uint8_t *out) {
    if (!(flags & EM_SEEN)) {
        *out = 0;
        return out + 1;
    }
    em_hll sketch;
    memcpy(&sketch, record + part->at, sizeof sketch);
    const uint8_t *from = em_heap_at(heap, sketch.ref);
    const size_t dense = (size_t)1 << part->param;
    const bool sparse = sketch.capacity > 0;
    const size_t body = sparse ? 3 * (size_t)sketch.count : dense;
    out = em_put_varint(out, EM_HLL_HEAD_BYTES + body);
    *out++ = (uint8_t)part->param;
    *out++ = !sparse;
    if (!sparse) {
        memcpy(out, from, dense);
        return out + dense;
    }
    for (size_t i = 0; i < sketch.count; i++, out += 3) {
        uint32_t entry;
        memcpy(&entry, from + 4 * i, 4);
        const uint32_t word = entry >> 8 << 6 | (entry & 63);
        out[0] = (uint8_t)word;
        out[1] = (uint8_t)(word >> 8);
        out[2] = (uint8_t)(word >> 16);
    }
    return out;
}

uint8_t *em_pack(const em_layout *layout, uint8_t *record, const em_heap *heap, uint8_t *out) {
    for (uint32_t i = 0; i < layout->count; i++) {
        const em_part *part = &layout->parts[i];
        const uint8_t flags = *em_flags(record, i);
        uint64_t count;
        switch (part->op) {
        case EM_COUNT_ROWS:
        case EM_COUNT:
        case EM_COUNT_SUM:
            memcpy(&count, record + part->at, 8);
            out = em_put_varint(out, count);
            break;
        case EM_SUM:
            out = pack_sum(part, record, flags, heap, out);
            break;
        case EM_FLOAT_SUM:
        case EM_FLOAT_SQUARES:
        case EM_FLOAT_MERGE:
            out = pack_floats(part, record, flags, heap, out);
            break;
        case EM_HLL:
        case EM_HLL_MERGE:
            out = pack_hll(part, record, flags, heap, out);
            break;
        default:
            out = pack_value(part, record, flags, heap, out);
        }
    }
    return out;
}

static const uint8_t *read_integer(const uint8_t *in, const uint8_t *end, uint64_t *limbs,
                                   size_t count, bool *seen) {
    if (in >= end || *in > 8 * count || (size_t)(end - in) < 1u + *in) {
        return NULL;
    }
    const size_t size = *in++;
    *seen = size > 0;
    if (count == 1 && size > 0) {
        limbs[0] = (uint64_t)em_unpack_i64(in, size);
    } else {
        em_unpack_integer(in, size, limbs, count);
    }
    return in + size;
}

static const uint8_t *read_floats(const uint8_t *in, const uint8_t *end, em_packed *out) {
    static const size_t least[] = {0, 8, 4, EM_FLOAT_STATE_BYTES};
    if (in >= end || *in > EM_FLOATS_WHOLE || (size_t)(end - in) < 1 + least[*in]) {
        return NULL;
    }
    out->form = (enum em_floats) * in++;
    out->seen = out->form != EM_FLOATS_NONE;
    if (out->form == EM_FLOATS_ONE) {
        memcpy(&out->one, in, 8);
        return in + 8;
    }
    if (out->form == EM_FLOATS_WHOLE) {
        return em_float_load(in, &out->floats) ? in + EM_FLOAT_STATE_BYTES : NULL;
    }
    if (out->form == EM_FLOATS_FEW) {
        out->few.above = *in++;
        out->few.adds =
            2; /* any number but 1, which would mean a single value: see pack_floats() */
        for (int i = 0; i < 3 && in != NULL; i++) {
            uint64_t word = 0;
            bool any;
            in = read_integer(in, end, &word, 1, &any);
            out->few.sums[i] = (int64_t)word;
        }
        return out->few.above <= EM_FLOAT_BINS ? in : NULL;
    }
    return in;
}

em_float_sum em_packed_floats(const em_packed *packed) {
    em_float_sum sum = EM_FLOAT_EMPTY;
    switch (packed->form) {
    case EM_FLOATS_ONE:
        em_float_sum_add_one(&sum, packed->one);
        return sum;
    case EM_FLOATS_FEW:
        return em_float_widened(&packed->few);
    case EM_FLOATS_WHOLE:
        return packed->floats;
    default:
        return sum;
    }
}

double em_packed_float_value(const em_packed *packed) {
    if (packed->form == EM_FLOATS_ONE && !em_float_is_special(em_float_bits(packed->one))) {
        return packed->one + 0.0; /* -0.0 becomes 0.0 */
    }
    if (packed->form == EM_FLOATS_FEW) {
        return em_float_bins_value(&packed->few);
    }
    const em_float_sum sum = em_packed_floats(packed);
    return em_float_value(&sum);
}

static const uint8_t *read_text(const uint8_t *in, const uint8_t *end, em_packed *out) {
    uint64_t size;
    in = em_get_varint(in, end, &size);
    if (in == NULL || size > (uint64_t)(end - in)) {
        return NULL;
    }
    out->text = in;
    out->text_bytes = size;
    return in + size;
}

static const uint8_t *read_value(const em_part *part, const uint8_t *in, const uint8_t *end,
                                 em_packed *out) {
    if (in >= end || (*in & ~(EM_SEEN | EM_IS_NULL)) != 0) {
        return NULL;
    }
    out->seen = *in & EM_SEEN;
    out->null = *in++ & EM_IS_NULL;
    if (!out->seen) {
        return in;
    }
    out->count = 0;
    if (is_ordered(part->op)) {
        in = em_get_varint(in, end, &out->count);
    }
    if (out->null || in == NULL) {
        return in;
    }
    bool any;
    uint64_t words[2];
    switch (em_class_of(part->kind)) {
    case EM_CLASS_TEXT:
        return read_text(in, end, out);
    case EM_CLASS_FLOAT:
        if (end - in < 8) {
            return NULL;
        }
        memcpy(out->value, in, 8);
        return in + 8;
    case EM_CLASS_WIDE:
        in = read_integer(in, end, words, 2, &any);
        break;
    default:
        words[0] = 0;
        in = read_integer(in, end, words, 1, &any);
        words[1] = 0;
    }
    if (in != NULL) {
        memcpy(out->value, words, 16);
    }
    return in;
}

const uint8_t *em_packed_read_part(const em_part *part, const uint8_t *in, const uint8_t *end,
                                   em_packed *out) {
    switch (part->op) {
    case EM_COUNT_ROWS:
    case EM_COUNT:
    case EM_COUNT_SUM:
        out->seen = true;
        return em_get_varint(in, end, &out->count);
    case EM_SUM:
        return read_integer(in, end, out->sum.limbs, 3, &out->seen);
    case EM_FLOAT_SUM:
    case EM_FLOAT_SQUARES:
    case EM_FLOAT_MERGE:
        return read_floats(in, end, out);
    case EM_HLL:
    case EM_HLL_MERGE:
        in = read_text(in, end, out);
        out->seen = in != NULL && out->text_bytes > 0;
        return in;
    default:
        return read_value(part, in, end, out);
    }
}

static void merge_sum(uint8_t *record, const em_part *part, size_t index, em_sum *sum,
                      em_heap *heap) {
    em_i128 value;
    if (em_sum_narrow(sum, &value)) {
        em_sum_put(record, part, index, value, heap);
        return;
    }
    em_sum_put(record, part, index, ((em_i128)INT64_MAX + 1) * 2, heap); /* moves to the heap */
    uint32_t ref;
    memcpy(&ref, record + part->at, sizeof ref);
    if (heap->failed) {
        return;
    }
    const em_sum back = em_sum_of(((em_i128)INT64_MAX + 1) * -2);
    em_sum held;
    memcpy(&held, em_heap_at(heap, ref), sizeof held);
    em_sum_add(&held, &back);
    em_sum_add(&held, sum);
    memcpy(em_heap_at(heap, ref), &held, sizeof held);
}

static bool merge_part(const em_part *part, uint8_t *record, size_t index, em_heap *heap,
                       em_packed *packed) {
    uint64_t count;
    switch (part->op) {
    case EM_COUNT_ROWS:
    case EM_COUNT:
    case EM_COUNT_SUM:
        memcpy(&count, record + part->at, 8);
        count += packed->count;
        memcpy(record + part->at, &count, 8);
        return true;
    case EM_SUM:
        merge_sum(record, part, index, &packed->sum, heap);
        return true;
    case EM_FLOAT_SUM:
    case EM_FLOAT_SQUARES:
    case EM_FLOAT_MERGE:
        if (packed->form == EM_FLOATS_ONE) {
            em_float_put(record, part, index, packed->one, heap);
        } else if (packed->form == EM_FLOATS_FEW) {
            em_float_put_bins(record, part, index, &packed->few, heap);
        } else {
            em_float_put_sum(record, part, index, &packed->floats, heap);
        }
        return true;
    case EM_HLL:
    case EM_HLL_MERGE:
        return em_hll_put_bytes(record, part, index, packed->text, packed->text_bytes, heap);
    default:
        if (packed->null) {
            em_null_put(record, part, index, packed->count);
            return true;
        }
        em_value_put(record, part, index, packed->count, packed->value, packed->text,
                     packed->text_bytes, heap);
        return true;
    }
}

const uint8_t *em_merge_packed(const em_layout *layout, uint8_t *record, em_heap *heap,
                               const uint8_t *in, const uint8_t *end) {
    em_packed packed;
    for (uint32_t i = 0; i < layout->count && in != NULL; i++) {
        in = em_packed_read_part(&layout->parts[i], in, end, &packed);
        if (in != NULL && packed.seen && !merge_part(&layout->parts[i], record, i, heap, &packed)) {
            return NULL;
        }
    }
    return heap->failed || in != end ? NULL : in;
}
