/* States in records: their layout, and adding one more value. */
#include "states.h"

#include "xxh3.h"

uint32_t em_heap_allocate(em_heap *heap, size_t bytes) {
    const size_t whole = EM_HEAP_HEAD + em_align8(bytes);
    if (heap->limit - heap->used < whole || whole > UINT32_MAX) {
        heap->failed = true;
        return 0;
    }
    uint8_t *head = heap->memory + heap->used;
    const uint32_t marks[2] = {EM_HEAP_MARK, (uint32_t)whole};
    memset(head, 0, whole);
    memcpy(head, marks, sizeof marks);
    const uint32_t ref = (uint32_t)((heap->used + EM_HEAP_HEAD) / 8);
    heap->used += whole;
    return ref;
}

static bool part_fits(const em_part *part) {
    const enum em_class class = em_class_of(part->kind);
    switch (part->op) {
    case EM_COUNT_SUM:
        return part->kind == EM_I64;
    case EM_SUM:
    case EM_FLOAT_SUM:
    case EM_FLOAT_SQUARES:
        return class != EM_CLASS_TEXT && part->kind != EM_BOOL &&
               (part->op != EM_SUM || class != EM_CLASS_FLOAT);
    case EM_FLOAT_MERGE:
        return part->kind == EM_BYTES;
    case EM_HLL_MERGE:
        return part->kind == EM_BYTES && part->param >= EM_HLL_P_MIN && part->param <= EM_HLL_P_MAX;
    case EM_HLL:
        return part->param >= EM_HLL_P_MIN && part->param <= EM_HLL_P_MAX;
    default:
        return part->op < EM_PART_OPS;
    }
}

static size_t state_bytes(const em_part *part) {
    switch (part->op) {
    case EM_FLOAT_SUM:
    case EM_FLOAT_SQUARES:
    case EM_FLOAT_MERGE:
        return sizeof(em_float_bins);
    case EM_MIN:
    case EM_MAX:
        return em_class_of(part->kind) == EM_CLASS_WIDE ? 16 : 8;
    case EM_FIRST:
    case EM_LAST:
        return em_class_of(part->kind) == EM_CLASS_WIDE ? 24 : 16;
    default:
        return 8;
    }
}

bool em_layout_place(em_layout *layout) {
    size_t at = em_align8(EM_RECORD_FLAGS + layout->count);
    for (uint32_t i = 0; i < layout->count; i++) {
        em_part *part = &layout->parts[i];
        if (!part_fits(part)) {
            return false;
        }
        part->at = (uint32_t)at;
        at += state_bytes(part);
    }
    layout->fixed_bytes = (uint32_t)at;
    return layout->count <= EM_PARTS_MAX;
}

size_t em_part_growth(const em_part *part) {
    switch (part->op) {
    case EM_SUM:
        return EM_HEAP_HEAD + sizeof(em_sum);
    case EM_FLOAT_SUM:
    case EM_FLOAT_SQUARES:
    case EM_FLOAT_MERGE:
        return EM_HEAP_HEAD + sizeof(em_float_sum) + 8;
    case EM_HLL:
    case EM_HLL_MERGE:
        return 2 * (EM_HEAP_HEAD + ((size_t)1 << part->param));
    default:
        return part->op >= EM_MIN && em_class_of(part->kind) == EM_CLASS_TEXT ? EM_HEAP_HEAD + 24
                                                                              : 0;
    }
}

size_t em_merge_growth(const em_layout *layout, size_t packed_bytes) {
    size_t growth = 2 * packed_bytes + 64;
    for (uint32_t i = 0; i < layout->count; i++) {
        growth += em_part_growth(&layout->parts[i]);
    }
    return growth;
}

/* Exact sums: 64 bits in the record until they overflow, then 192 bits in the heap. */
void em_sum_put(uint8_t *record, const em_part *part, size_t index, em_i128 value, em_heap *heap) {
    uint8_t *state = record + part->at, *flags = em_flags(record, index);
    *flags |= EM_SEEN;
    uint32_t ref;
    if (!(*flags & EM_HEAPED)) {
        int64_t small, sum;
        memcpy(&small, state, 8);
        if (value >= INT64_MIN && value <= INT64_MAX &&
            !__builtin_add_overflow(small, (int64_t)value, &sum)) {
            memcpy(state, &sum, 8);
            return;
        }
        ref = em_heap_allocate(heap, sizeof(em_sum));
        if (ref == 0) {
            return;
        }
        const em_sum begun = em_sum_of(small);
        memcpy(em_heap_at(heap, ref), &begun, sizeof begun);
        memset(state, 0, 8);
        memcpy(state, &ref, sizeof ref);
        *flags |= EM_HEAPED;
    }
    memcpy(&ref, state, sizeof ref);
    const em_sum more = em_sum_of(value);
    em_sum sum;
    memcpy(&sum, em_heap_at(heap, ref), sizeof sum);
    em_sum_add(&sum, &more);
    memcpy(em_heap_at(heap, ref), &sum, sizeof sum);
}

/* Return the heap's copy of a float sum, after moving it there if necessary; NULL when the heap is
 * full. */
static uint8_t *heaped_floats(uint8_t *record, const em_part *part, size_t index, em_heap *heap) {
    uint8_t *state = record + part->at, *flags = em_flags(record, index);
    uint32_t ref;
    if (!(*flags & EM_HEAPED)) {
        em_float_bins bins;
        memcpy(&bins, state, sizeof bins);
        ref = em_heap_allocate(heap, sizeof(em_float_sum));
        if (ref == 0) {
            return NULL;
        }
        const em_float_sum sum = em_float_widened(&bins);
        memcpy(em_heap_at(heap, ref), &sum, sizeof sum);
        memcpy(state, &ref, sizeof ref);
        *flags |= EM_HEAPED;
    }
    memcpy(&ref, state, sizeof ref);
    return em_heap_at(heap, ref);
}

void em_float_put(uint8_t *record, const em_part *part, size_t index, double value, em_heap *heap) {
    uint8_t *flags = em_flags(record, index);
    *flags |= EM_SEEN;
    const uint64_t bits = em_float_bits(value);
    if (!(*flags & EM_HEAPED) && !em_float_is_special(bits)) {
        em_float_bins *bins = (em_float_bins *)(void *)(record + part->at);
        if (bins->adds < EM_FLOAT_ADDS_MAX) {
            em_float_bins_add(bins, bits);
            return;
        }
    }
    uint8_t *at = heaped_floats(record, part, index, heap);
    if (at != NULL) {
        em_float_sum sum;
        memcpy(&sum, at, sizeof sum);
        em_float_sum_add_one(&sum, value);
        memcpy(at, &sum, sizeof sum);
    }
}

void em_float_put_sum(uint8_t *record, const em_part *part, size_t index, const em_float_sum *more,
                      em_heap *heap) {
    uint8_t *flags = em_flags(record, index);
    em_float_bins bins;
    const bool first = !(*flags & EM_SEEN);
    *flags |= EM_SEEN;
    if (first && em_float_narrowed(more, &bins)) {
        memcpy(record + part->at, &bins, sizeof bins);
        return;
    }
    if (!(*flags & EM_HEAPED)) {
        memcpy(&bins, record + part->at, sizeof bins);
        em_float_sum sum = em_float_widened(&bins);
        em_float_sum_merge(&sum, more);
        if (em_float_narrowed(&sum, &bins)) {
            memcpy(record + part->at, &bins, sizeof bins);
            return;
        }
    }
    uint8_t *at = heaped_floats(record, part, index, heap);
    if (at != NULL) {
        em_float_sum sum;
        memcpy(&sum, at, sizeof sum);
        em_float_sum_merge(&sum, more);
        memcpy(at, &sum, sizeof sum);
    }
}

void em_float_put_bins(uint8_t *record, const em_part *part, size_t index,
                       const em_float_bins *more, em_heap *heap) {
    uint8_t *flags = em_flags(record, index);
    if (!(*flags & EM_HEAPED)) {
        em_float_bins bins;
        memcpy(&bins, record + part->at, sizeof bins);
        if (em_float_bins_merge(&bins, more)) {
            memcpy(record + part->at, &bins, sizeof bins);
            *flags |= EM_SEEN;
            return;
        }
    }
    const em_float_sum whole = em_float_widened(more);
    em_float_put_sum(record, part, index, &whole, heap);
}

/* A text that outgrows its capacity gets at least twice as much, so that all its allocations
 * together are less than twice the last one. */
void em_text_put(uint8_t *state, const uint8_t *text, uint32_t bytes, em_heap *heap) {
    em_text_ref held;
    memcpy(&held, state, sizeof held);
    heap->text_bytes_max = bytes > heap->text_bytes_max ? bytes : heap->text_bytes_max;
    uint32_t capacity = 0;
    if (held.ref != 0) {
        memcpy(&capacity, em_heap_at(heap, held.ref) - 4, 4);
        capacity -= EM_HEAP_HEAD;
    }
    if (bytes > capacity) {
        const size_t doubled = 2 * (size_t)capacity;
        held.ref = em_heap_allocate(heap, bytes > doubled ? bytes : doubled);
        if (held.ref == 0) {
            return;
        }
    }
    if (bytes > 0) {
        memcpy(em_heap_at(heap, held.ref), text, bytes);
    }
    held.bytes = bytes;
    memcpy(state, &held, sizeof held);
}

static bool is_better(const em_part *part, const uint8_t *state, const uint8_t *value,
                      const uint8_t *text, size_t bytes, const em_heap *heap) {
    const bool largest = part->op == EM_MAX;
    int64_t a, b;
    double x, y;
    em_text_ref held;
    switch (em_class_of(part->kind)) {
    case EM_CLASS_INT:
        memcpy(&a, value, 8);
        memcpy(&b, state, 8);
        return largest ? a > b : a < b;
    case EM_CLASS_UINT:
        memcpy(&a, value, 8);
        memcpy(&b, state, 8);
        return largest ? (uint64_t)a > (uint64_t)b : (uint64_t)a < (uint64_t)b;
    case EM_CLASS_FLOAT:
        memcpy(&x, value, 8);
        memcpy(&y, state, 8);
        return largest ? em_double_above(x, y) : em_double_above(y, x);
    case EM_CLASS_WIDE: {
        const em_i128 mine = em_load_i128(value), theirs = em_load_i128(state);
        return largest ? mine > theirs : mine < theirs;
    }
    default: {
        memcpy(&held, state, sizeof held);
        const size_t common = bytes < held.bytes ? bytes : held.bytes;
        const int order = common == 0 ? 0 : memcmp(text, em_heap_at(heap, held.ref), common);
        return largest ? order > 0 || (order == 0 && bytes > held.bytes)
                       : order < 0 || (order == 0 && bytes < held.bytes);
    }
    }
}

/* Whether row `sequence` is before (first) or after (last) the held one; if so, store its number.
 */
static bool replaces_held(uint8_t *record, const em_part *part, size_t index, uint64_t sequence) {
    uint64_t held;
    memcpy(&held, record + part->at, 8);
    if ((*em_flags(record, index) & EM_SEEN) &&
        (part->op == EM_FIRST ? sequence >= held : sequence <= held)) {
        return false;
    }
    memcpy(record + part->at, &sequence, 8);
    return true;
}

void em_null_put(uint8_t *record, const em_part *part, size_t index, uint64_t sequence) {
    if (replaces_held(record, part, index, sequence)) {
        *em_flags(record, index) |= EM_SEEN | EM_IS_NULL;
    }
}

void em_value_put(uint8_t *record, const em_part *part, size_t index, uint64_t sequence,
                  const uint8_t *value, const uint8_t *text, size_t bytes, em_heap *heap) {
    uint8_t *state = record + part->at, *flags = em_flags(record, index);
    const bool seen = *flags & EM_SEEN;
    if (part->op == EM_FIRST || part->op == EM_LAST) {
        if (!replaces_held(record, part, index, sequence)) {
            return;
        }
        state += 8;
    } else if (seen && !is_better(part, state, value, text, bytes, heap)) {
        return;
    }
    *flags = (uint8_t)((*flags | EM_SEEN) & ~EM_IS_NULL);
    const enum em_class class = em_class_of(part->kind);
    if (class == EM_CLASS_TEXT) {
        em_text_put(state, text, (uint32_t)bytes, heap);
    } else {
        memcpy(state, value, class == EM_CLASS_WIDE ? 16 : 8);
    }
}

uint64_t em_value_hash(enum em_class class, const void *value, size_t bytes) {
    double number;
    if (class == EM_CLASS_FLOAT) {
        memcpy(&number, value, sizeof number);
        number = number == 0 ? 0.0 : number != number ? (double)__builtin_nan("") : number;
        value = &number;
    }
    return em_xxh3(value, bytes, 0);
}

static void hll_to_dense(em_hll *sketch, int p, em_heap *heap) {
    const uint32_t ref = em_heap_allocate(heap, (size_t)1 << p);
    if (ref == 0) {
        return;
    }
    const uint8_t *from = em_heap_at(heap, sketch->ref);
    for (size_t i = 0; i < sketch->count; i++) {
        uint32_t entry;
        memcpy(&entry, from + 4 * i, 4);
        em_heap_at(heap, ref)[entry >> 8] = (uint8_t)entry;
    }
    *sketch = (em_hll){.ref = ref};
}

static bool hll_grow(em_hll *sketch, int p, em_heap *heap) {
    const size_t most = em_hll_sparse_max(p);
    if (sketch->ref != 0 && sketch->capacity == most) {
        hll_to_dense(sketch, p, heap);
        return !heap->failed;
    }
    const size_t capacity = sketch->ref == 0 ? 4 : (size_t)sketch->capacity * 2;
    const uint32_t ref = em_heap_allocate(heap, 4 * capacity);
    if (ref == 0) {
        return false;
    }
    if (sketch->count > 0) {
        memcpy(em_heap_at(heap, ref), em_heap_at(heap, sketch->ref), 4 * (size_t)sketch->count);
    }
    sketch->ref = ref;
    sketch->capacity = (uint16_t)(capacity < most ? capacity : most);
    return true;
}

/* Return the index where the register of `entry` is or would be among the sparse ones. */
static size_t hll_find(const uint8_t *entries, size_t count, uint32_t entry) {
    size_t low = 0, high = count;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        uint32_t found;
        memcpy(&found, entries + 4 * middle, 4);
        if (found >> 8 < entry >> 8) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

void em_hll_put(uint8_t *record, const em_part *part, size_t index, uint32_t entry, em_heap *heap) {
    uint8_t *state = record + part->at;
    *em_flags(record, index) |= EM_SEEN;
    em_hll sketch;
    memcpy(&sketch, state, sizeof sketch);
    if (sketch.ref != 0 && sketch.capacity > 0) {
        uint8_t *entries = em_heap_at(heap, sketch.ref);
        const size_t place = hll_find(entries, sketch.count, entry);
        uint32_t found = 0;
        if (place < sketch.count) {
            memcpy(&found, entries + 4 * place, 4);
        }
        if (place < sketch.count && found >> 8 == entry >> 8) {
            found = found > entry ? found : entry;
            memcpy(entries + 4 * place, &found, 4);
            return;
        }
    }
    if (sketch.ref == 0 || (sketch.capacity > 0 && sketch.count == sketch.capacity)) {
        if (!hll_grow(&sketch, part->param, heap)) {
            return;
        }
    }
    uint8_t *at = em_heap_at(heap, sketch.ref);
    if (sketch.capacity == 0) {
        uint8_t *reg = at + (entry >> 8);
        *reg = *reg > (uint8_t)entry ? *reg : (uint8_t)entry;
    } else {
        const size_t place = hll_find(at, sketch.count, entry);
        memmove(at + 4 * place + 4, at + 4 * place, 4 * (sketch.count - place));
        memcpy(at + 4 * place, &entry, 4);
        sketch.count++;
    }
    memcpy(state, &sketch, sizeof sketch);
}

bool em_hll_put_bytes(uint8_t *record, const em_part *part, size_t index, const uint8_t *bytes,
                      size_t size, em_heap *heap) {
    if (!em_hll_check(bytes, size, part->param)) {
        return false;
    }
    *em_flags(record, index) |= EM_SEEN;
    const uint8_t *body = bytes + EM_HLL_HEAD_BYTES;
    if (bytes[1] == 0) {
        for (size_t i = 0; i + 3 <= size - EM_HLL_HEAD_BYTES; i += 3) {
            const uint32_t entry =
                (uint32_t)body[i] | (uint32_t)body[i + 1] << 8 | (uint32_t)body[i + 2] << 16;
            em_hll_put(record, part, index, (entry >> 6) << 8 | (entry & 63), heap);
        }
        return true;
    }
    em_hll sketch;
    memcpy(&sketch, record + part->at, sizeof sketch);
    if (sketch.ref == 0 || sketch.capacity > 0) {
        hll_to_dense(&sketch, part->param, heap);
        memcpy(record + part->at, &sketch, sizeof sketch);
    }
    if (heap->failed) {
        return true;
    }
    uint8_t *registers = em_heap_at(heap, sketch.ref);
    for (size_t i = 0; i < (size_t)1 << part->param; i++) {
        registers[i] = registers[i] > body[i] ? registers[i] : body[i];
    }
    return true;
}
