#include "fill.h"

static size_t aligned(size_t bytes) {
    return (bytes + EM_ARRAY_ALIGN - 1) / EM_ARRAY_ALIGN * EM_ARRAY_ALIGN;
}

/* Bits that every row needs. */
static size_t row_bits(const em_array *arrays, size_t count) {
    size_t bits = 0;
    for (size_t i = 0; i < count; i++) {
        bits += (arrays[i].kind == EM_BOOL ? 2u : 1u) + 8 * em_width(arrays[i].kind) +
                (em_is_text(arrays[i].kind) ? 8 * sizeof(int32_t) : 0);
    }
    return bits;
}

size_t em_arrays_bound(const em_array *arrays, size_t count, size_t rows, size_t text_bytes) {
    return count * (3 * EM_ARRAY_ALIGN + sizeof(int32_t)) + EM_ARRAY_ALIGN +
           rows * row_bits(arrays, count) / 8 + text_bytes;
}

size_t em_arrays_rows(const em_array *arrays, size_t count, size_t out_bytes) {
    const size_t fixed = em_arrays_bound(arrays, count, 0, 0) + 1, bits = row_bits(arrays, count);
    if (fixed >= out_bytes) {
        return 0;
    }
    const size_t rows = bits == 0 ? INT32_MAX : (out_bytes - fixed) * 8 / bits;
    return rows < INT32_MAX ? rows : INT32_MAX;
}

size_t em_array_values_bytes(const em_array *array, size_t rows) {
    if (em_is_text(array->kind)) {
        return array->text_bytes;
    }
    return array->kind == EM_BOOL ? (rows + 7) / 8 : em_width(array->kind) * rows;
}

void em_arrays_place(em_array *arrays, size_t count, size_t rows, uint8_t *out) {
    uint8_t *at = out + (aligned((uintptr_t)out) - (uintptr_t)out);
    for (size_t i = 0; i < count; i++) {
        em_array *array = &arrays[i];
        array->null_count = 0;
        array->validity = at;
        memset(array->validity, 0, (rows + 7) / 8);
        at += aligned((rows + 7) / 8);
        array->ends = NULL;
        if (em_is_text(array->kind)) {
            array->ends = (int32_t *)(void *)at;
            array->ends[0] = 0;
            at += aligned((rows + 1) * sizeof(int32_t));
        }
        array->values = at;
        if (array->ends == NULL) { /* nulls are zero, so that equal rows have equal bytes */
            memset(array->values, 0, em_array_values_bytes(array, rows));
        }
        at += aligned(em_array_values_bytes(array, rows));
    }
}
