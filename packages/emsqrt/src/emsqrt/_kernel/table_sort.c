/* Sort groups by key in the memory of the buckets: radix sort over the key bytes where keys differ,
 * four at a time, and merge sort where few groups are left. */
#include "table.h"

#define LEVEL_BYTES 4u
#define COMPARED_MAX 192u /* ranges up to this size are merge sorted */

static int compare(const em_table *table, uint64_t left, uint64_t right) {
    const uint8_t *a = em_table_record(table, left), *b = em_table_record(table, right);
    const uint32_t a_bytes = em_load32(a), b_bytes = em_load32(b);
    const int order = memcmp(em_record_key(table, a), em_record_key(table, b),
                             a_bytes < b_bytes ? a_bytes : b_bytes);
    return order != 0 ? order : (a_bytes > b_bytes) - (a_bytes < b_bytes);
}

static void insert_sort(const em_table *table, uint64_t *entries, size_t count) {
    for (size_t i = 1; i < count; i++) {
        const uint64_t entry = entries[i];
        size_t at = i;
        for (; at > 0 && compare(table, entries[at - 1], entry) > 0; at--) {
            entries[at] = entries[at - 1];
        }
        entries[at] = entry;
    }
}

/* Merge sort by whole keys, from short sorted runs up; the result is in `entries`. */
static void merge_sort(const em_table *table, uint64_t *entries, uint64_t *scratch, size_t count) {
    const size_t run = 8;
    for (size_t from = 0; from < count; from += run) {
        insert_sort(table, entries + from, count - from < run ? count - from : run);
    }
    uint64_t *source = entries, *target = scratch;
    for (size_t width = run; width < count; width *= 2) {
        for (size_t from = 0; from < count; from += 2 * width) {
            const size_t middle = from + width < count ? from + width : count;
            const size_t end = middle + width < count ? middle + width : count;
            size_t left = from, right = middle;
            for (size_t out = from; out < end; out++) {
                const bool left_first =
                    left < middle &&
                    (right >= end || compare(table, source[left], source[right]) <= 0);
                target[out] = left_first ? source[left++] : source[right++];
            }
        }
        uint64_t *swap = source;
        source = target;
        target = swap;
    }
    if (source != entries) {
        memcpy(entries, source, count * sizeof *entries);
    }
}

/* Load the key bytes at `count` positions into the high half of every entry. */
static void load_prefixes(const em_table *table, uint64_t *entries, size_t entry_count,
                          const uint32_t *positions, uint32_t count) {
    for (size_t i = 0; i < entry_count; i++) {
        if (i + 8 < entry_count) {
            const uint8_t *ahead = em_table_record(table, entries[i + 8]);
            __builtin_prefetch(ahead);
            __builtin_prefetch(em_record_key(table, ahead));
        }
        const uint8_t *record = em_table_record(table, entries[i]);
        const uint8_t *key = em_record_key(table, record);
        const uint32_t bytes = em_load32(record);
        uint32_t prefix = 0;
        for (uint32_t k = 0; k < count; k++) {
            prefix = prefix << 8 | (positions[k] < bytes ? key[positions[k]] : 0u);
        }
        entries[i] = (uint64_t)prefix << 32 | (uint32_t)entries[i];
    }
}

/* Sort by the low `bytes` bytes of the high half; the result is in `entries`. */
static void radix_sort(uint64_t *entries, uint64_t *scratch, size_t count, uint32_t bytes) {
    uint64_t *source = entries, *target = scratch;
    for (uint32_t byte = 0; byte < bytes; byte++) {
        const unsigned shift = 32 + 8 * byte;
        size_t starts[256] = {0};
        for (size_t i = 0; i < count; i++) {
            starts[source[i] >> shift & 0xFF]++;
        }
        size_t total = 0;
        for (size_t digit = 0; digit < 256; digit++) {
            const size_t here = starts[digit];
            starts[digit] = total;
            total += here;
        }
        for (size_t i = 0; i < count; i++) {
            target[starts[source[i] >> shift & 0xFF]++] = source[i];
        }
        uint64_t *swap = source;
        source = target;
        target = swap;
    }
    if (source != entries) {
        memcpy(entries, source, count * sizeof *entries);
    }
}

static void order_level(const em_table *table, uint64_t *entries, uint64_t *scratch, size_t count,
                        const em_positions *positions, uint32_t level) {
    const uint32_t from = level * LEVEL_BYTES;
    if (count <= COMPARED_MAX || from >= positions->count) {
        merge_sort(table, entries, scratch, count);
        return;
    }
    const uint32_t left = positions->count - from, here = left < LEVEL_BYTES ? left : LEVEL_BYTES;
    load_prefixes(table, entries, count, positions->at + from, here);
    radix_sort(entries, scratch, count, here);
    if (positions->decides && here == left) {
        return; /* all keys are different, and these bytes distinguish them */
    }
    for (size_t start = 0, end; start < count; start = end) {
        for (end = start + 1; end < count && (entries[end] ^ entries[start]) >> 32 == 0;) {
            end++;
        }
        if (end - start > 1) {
            order_level(table, entries + start, scratch, end - start, positions, level + 1);
        }
    }
}

void em_order_groups(const em_table *table, uint64_t *entries, uint64_t *scratch, size_t count) {
    const em_positions positions = em_key_differences_positions(&table->differences);
    order_level(table, entries, scratch, count, &positions, 0);
}
