/* Radix sort, least significant digit first, over the key prefixes (key_prefix.h); then rows with
 * equal prefixes are sorted by the rest of their keys.
 *
 * A large range of equal prefixes is sorted in the same way by the next positions where its keys
 * differ; a small one, or one after many levels, is merge sorted by whole keys.
 */
#include <string.h>

#include "order.h"
#include "rows.h"

enum {
    DIGITS = 256,
    AHEAD = 12,         /* rows to prefetch */
    COMPARE_ROWS = 384, /* ranges of fewer rows are merge sorted */
    INSERT_ROWS = 12,   /* the merge sort starts from insertion-sorted ranges of this many rows */
    DEPTH_MAX = 6,      /* levels of radix sort before merge sort; each needs 12 KiB of stack */
    WINDOW_BYTES = 64,  /* bytes of the keys that are searched at a time for the next positions */
};

static inline const uint8_t *row_at(em_row_place place, const em_entry *entry) {
    return place.rows + ((size_t)entry->at << place.shift);
}

static inline unsigned digit_of(const em_entry *entry, unsigned digit, unsigned low_digits) {
    return digit < low_digits ? entry->low >> (8 * digit) & 0xff
                              : (unsigned)(entry->high >> (8 * (digit - low_digits)) & 0xff);
}

/* Read the prefixes and count their digits; true when they are sorted already. */
static bool gather(em_row_place place, em_entry *entries, size_t count,
                   const em_positions *positions, uint32_t (*counts)[DIGITS]) {
    const unsigned digits = positions->count, low_digits = digits > 8 ? digits - 8 : 0;
    bool rising = true;
    uint64_t last_high = 0;
    uint32_t last_low = 0;
    for (size_t i = 0; i < count; i++) {
        if (i + AHEAD < count) {
            __builtin_prefetch(row_at(place, &entries[i + AHEAD]));
        }
        em_entry *entry = &entries[i];
        const uint8_t *row = row_at(place, entry);
        em_positions_gather(positions, em_row_key(row), em_row_key_bytes(row), &entry->high,
                            &entry->low);
        rising &= last_high < entry->high || (last_high == entry->high && last_low <= entry->low);
        last_high = entry->high;
        last_low = entry->low;
        for (unsigned digit = 0; digit < digits; digit++) {
            counts[digit][digit_of(entry, digit, low_digits)]++;
        }
    }
    return rising;
}

static void scatter_low(const em_entry *from, em_entry *to, size_t count, unsigned shift,
                        uint32_t *next) {
    for (size_t i = 0; i < count; i++) {
        to[next[from[i].low >> shift & 0xff]++] = from[i];
    }
}

static void scatter_high(const em_entry *from, em_entry *to, size_t count, unsigned shift,
                         uint32_t *next) {
    for (size_t i = 0; i < count; i++) {
        to[next[from[i].high >> shift & 0xff]++] = from[i];
    }
}

/* Sort by the prefixes' digits; return the array that has the result. */
static em_entry *sort_digits(em_entry *entries, em_entry *scratch, size_t count, unsigned digits,
                             uint32_t (*counts)[DIGITS]) {
    const unsigned low_digits = digits > 8 ? digits - 8 : 0;
    for (unsigned digit = 0; digit < digits; digit++) {
        uint32_t *next = counts[digit];
        /* All rows have the same digit, so this pass would not change their order. */
        if (next[digit_of(entries, digit, low_digits)] == count) {
            continue;
        }
        uint32_t total = 0;
        for (unsigned value = 0; value < DIGITS; value++) {
            const uint32_t rows = next[value];
            next[value] = total;
            total += rows;
        }
        if (digit < low_digits) {
            scatter_low(entries, scratch, count, 8 * digit, next);
        } else {
            scatter_high(entries, scratch, count, 8 * (digit - low_digits), next);
        }
        em_entry *sorted = scratch;
        scratch = entries;
        entries = sorted;
    }
    return entries;
}

static void insert_sorted(em_row_place place, em_entry *entries, size_t count) {
    for (size_t i = 1; i < count; i++) {
        const em_entry entry = entries[i];
        const uint8_t *row = row_at(place, &entry);
        size_t hole = i;
        for (; hole > 0 && em_compare_keys(row_at(place, &entries[hole - 1]), row) > 0; hole--) {
            entries[hole] = entries[hole - 1];
        }
        entries[hole] = entry;
    }
}

static void merge_halves(em_row_place place, const em_entry *left, const em_entry *middle,
                         const em_entry *end, em_entry *out) {
    const em_entry *right = middle;
    while (left < middle && right < end) {
        const bool right_first = em_compare_keys(row_at(place, right), row_at(place, left)) < 0;
        *out++ = right_first ? *right++ : *left++;
    }
    memcpy(out, left, (size_t)(middle - left) * sizeof *left);
    memcpy(out + (middle - left), right, (size_t)(end - right) * sizeof *right);
}

/* Merge sort by whole keys; the result is in `entries`. */
static void sort_compared(em_row_place place, em_entry *entries, em_entry *scratch, size_t count) {
    for (size_t start = 0; start < count; start += INSERT_ROWS) {
        const size_t rows = count - start < INSERT_ROWS ? count - start : INSERT_ROWS;
        insert_sorted(place, entries + start, rows);
    }
    em_entry *from = entries, *to = scratch;
    for (size_t width = INSERT_ROWS; width < count; width *= 2) {
        for (size_t start = 0; start < count; start += 2 * width) {
            const size_t middle = count - start < width ? count : start + width;
            const size_t end = count - start < 2 * width ? count : start + 2 * width;
            merge_halves(place, from + start, from + middle, from + end, to + start);
        }
        em_entry *merged = to;
        to = from;
        from = merged;
    }
    if (from != entries) {
        memcpy(entries, from, count * sizeof *entries);
    }
}

/* Find the next positions, from `from` on, where these rows' keys differ. False when the keys are
 * equal from there on. */
static bool find_positions(em_row_place place, const em_entry *entries, size_t count, uint32_t from,
                           em_positions *positions) {
    uint32_t longest = 0, shortest = UINT32_MAX;
    for (size_t i = 0; i < count; i++) {
        const uint32_t bytes = em_row_key_bytes(row_at(place, &entries[i]));
        longest = bytes > longest ? bytes : longest;
        shortest = bytes < shortest ? bytes : shortest;
    }
    for (; from < longest; from += WINDOW_BYTES) {
        em_key_differences differences = {0};
        for (size_t i = 0; i < count; i++) {
            const uint8_t *row = row_at(place, &entries[i]);
            const uint32_t bytes = em_row_key_bytes(row);
            const uint32_t seen = bytes > from ? bytes - from : 0;
            em_key_differences_add(&differences, em_row_key(row) + (bytes > from ? from : bytes),
                                   seen);
        }
        *positions = em_key_differences_positions(&differences);
        if (positions->count > 0) {
            for (uint32_t i = 0; i < positions->count; i++) {
                positions->at[i] += from;
            }
            return true;
        }
    }
    return shortest != longest;
}

static void sort_ties(em_row_place place, em_entry *entries, em_entry *scratch, size_t count,
                      uint32_t from, unsigned depth);

/* Sort a range of rows whose keys are equal before `from`; the result is in `entries`. */
static void sort_range(em_row_place place, em_entry *entries, em_entry *scratch, size_t count,
                       uint32_t from, unsigned depth) {
    em_positions positions = {0};
    if (count < COMPARE_ROWS || depth == DEPTH_MAX) {
        sort_compared(place, entries, scratch, count);
        return;
    }
    if (!find_positions(place, entries, count, from, &positions)) {
        return;
    }
    if (positions.count == 0) { /* the keys differ only in the number of zeros at their ends */
        sort_compared(place, entries, scratch, count);
        return;
    }
    uint32_t counts[EM_PREFIX_BYTES][DIGITS] = {0};
    if (!gather(place, entries, count, &positions, counts)) {
        em_entry *sorted = sort_digits(entries, scratch, count, positions.count, counts);
        if (sorted != entries) {
            memcpy(entries, sorted, count * sizeof *entries);
        }
    }
    sort_ties(place, entries, scratch, count, positions.at[positions.count - 1] + 1, depth + 1);
}

/* Sort each range of rows with equal prefixes by the rest of their keys. */
static void sort_ties(em_row_place place, em_entry *entries, em_entry *scratch, size_t count,
                      uint32_t from, unsigned depth) {
    for (size_t start = 0, end; start < count; start = end) {
        end = start + 1;
        while (end < count && entries[end].high == entries[start].high &&
               entries[end].low == entries[start].low) {
            end++;
        }
        if (end - start > 1) {
            sort_range(place, entries + start, scratch + start, end - start, from, depth);
        }
    }
}

em_entry *em_order_rows(em_row_place place, em_entry *entries, em_entry *scratch, size_t count,
                        const em_positions *positions) {
    uint32_t counts[EM_PREFIX_BYTES][DIGITS] = {0};
    em_entry *sorted = entries;
    if (!gather(place, entries, count, positions, counts)) {
        sorted = sort_digits(entries, scratch, count, positions->count, counts);
    }
    if (!positions->decides) {
        const uint32_t from = positions->count == 0 ? 0 : positions->at[positions->count - 1] + 1;
        sort_ties(place, sorted, sorted == entries ? scratch : entries, count, from, 0);
    }
    return sorted;
}
