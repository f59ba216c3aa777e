/* The hash table of the build side's rows. */
#include "join.h"

#include <assert.h>

enum {
    GROUP = 32,       /* rows that are looked up together, so that their cache misses overlap */
    OFFSET_BITS = 40, /* of an entry; the other 24 bits are a tag, which spares most comparisons of
                         keys that differ */
    ENTRY_BYTES = 8,
    END_BYTES = 4,
    ALIGNMENT = 8,
};

static const uint64_t TABLE_SEED = UINT64_C(0x2545F4914F6CDD1D);
static const uint64_t OFFSET_MASK = (UINT64_C(1) << OFFSET_BITS) - 1;

static uint64_t hash_of(const uint8_t *row) {
    return em_hash_key(em_row_key(row), em_joined_key_bytes(row), TABLE_SEED);
}

/* Map the hash's upper half to a bucket by a multiplication instead of a division (D. Lemire: "Fast
 * random integer generation in an interval", 2019). */
static uint32_t bucket_of(const em_join_table *table, uint64_t hash) {
    return (uint32_t)((hash >> 32) * (uint64_t)table->key_count >> 32);
}

/* The tag is the hash's lowest bits, which bucket_of() does not use, so that it distinguishes the
 * keys of one bucket. */
static uint64_t tag_of(uint64_t hash) {
    return hash << OFFSET_BITS;
}

static bool same_key(const uint8_t *one, const uint8_t *other) {
    const uint32_t bytes = em_joined_key_bytes(one);
    return bytes == em_joined_key_bytes(other) &&
           memcmp(em_row_key(one), em_row_key(other), bytes) == 0;
}

static void mark(uint8_t *row) {
    em_store32(row + 4, em_row_key_bytes(row) | EM_MATCHED);
}

static size_t index_bytes(size_t keys) {
    return keys * (ENTRY_BYTES + END_BYTES) + ALIGNMENT;
}

enum em_walk em_join_add(em_join_table *table, const uint8_t *block, size_t size, size_t *at,
                         bool keys_only) {
    while (*at < size) {
        const uint8_t *row = em_spilled_row_at(block, size, *at, false);
        if (row == NULL) {
            return EM_WALK_DAMAGED;
        }
        const uint32_t key_bytes = em_joined_key_bytes(row);
        const uint32_t bytes = keys_only ? EM_ROW_HEAD_BYTES + key_bytes : em_row_bytes(row);
        const bool keyed = key_bytes > 0;
        if (keyed || !keys_only) {
            const size_t keys = table->key_count + keyed;
            if (table->rows_bytes + bytes + index_bytes(keys) > table->size || keys >= UINT32_MAX ||
                table->rows_bytes + bytes > OFFSET_MASK) {
                return EM_WALK_FULL;
            }
            uint8_t *to = table->memory + table->rows_bytes;
            memcpy(to, row, bytes);
            em_store32(to, bytes);
            table->rows_bytes += bytes;
            table->row_count++;
            table->key_count = keys;
        }
        *at += em_row_bytes(row);
    }
    return EM_WALK_ON;
}

/* Rows whose buckets are being prefetched. */
typedef struct {
    size_t count;
    size_t at[GROUP];
    uint64_t hash[GROUP];
} ahead;

/* Collect the next rows that have keys and prefetch their buckets; `*at` moves on. */
static void fetch_ahead(const em_join_table *table, size_t *at, ahead *rows) {
    rows->count = 0;
    while (rows->count < GROUP && *at < table->rows_bytes) {
        const uint8_t *row = table->memory + *at;
        if (em_joined_key_bytes(row) > 0) {
            const uint64_t hash = hash_of(row);
            __builtin_prefetch(&table->ends[bucket_of(table, hash)], 1);
            rows->at[rows->count] = *at;
            rows->hash[rows->count++] = hash;
        }
        *at += em_row_bytes(row);
    }
}

/* A counting sort: count the rows of each bucket, sum up the counts, place the entries. Both passes
 * read the rows in build order, so each bucket keeps it. */
void em_join_index(em_join_table *table) {
    const size_t keys = table->key_count;
    uint8_t *top = table->memory + table->size;
    top -= (uintptr_t)top % ALIGNMENT;
    table->entries = (uint64_t *)(void *)(top - keys * ENTRY_BYTES);
    table->ends = (uint32_t *)(void *)(top - keys * (ENTRY_BYTES + END_BYTES));
    /* em_join_add() leaves room for the index of every key; without a key the memory can even be
     * too short for the alignment of an index that nothing reads. */
    assert(keys == 0 || (uint8_t *)table->ends >= table->memory + table->rows_bytes);
    memset(table->ends, 0, keys * END_BYTES);
    ahead rows;
    size_t at = 0;
    for (fetch_ahead(table, &at, &rows); rows.count > 0; fetch_ahead(table, &at, &rows)) {
        for (size_t i = 0; i < rows.count; i++) {
            table->ends[bucket_of(table, rows.hash[i])]++;
        }
    }
    uint32_t sum = 0;
    for (size_t bucket = 0; bucket < keys; bucket++) {
        const uint32_t count = table->ends[bucket];
        table->ends[bucket] = sum;
        sum += count;
    }
    assert(sum == keys);
    at = 0;
    for (fetch_ahead(table, &at, &rows); rows.count > 0; fetch_ahead(table, &at, &rows)) {
        for (size_t i = 0; i < rows.count; i++) {
            /* ends[bucket] is the start of the bucket at first, and its end once all its entries
             * are placed. */
            const uint32_t place = table->ends[bucket_of(table, rows.hash[i])]++;
            table->entries[place] = tag_of(rows.hash[i]) | rows.at[i];
        }
    }
    table->indexed = true;
    table->inside = false;
    table->drained = 0;
}

static uint32_t bucket_start(const em_join_table *table, uint32_t bucket) {
    return bucket == 0 ? 0 : table->ends[bucket - 1];
}

/* Return the first entry from `next` on with the key of `row`; `end` when there is none. */
static uint32_t find(const em_join_table *table, uint32_t next, uint32_t end, uint64_t tag,
                     const uint8_t *row) {
    for (; next < end; next++) {
        const uint64_t entry = table->entries[next];
        if (((entry ^ tag) & ~OFFSET_MASK) == 0 &&
            same_key(table->memory + (entry & OFFSET_MASK), row)) {
            return next;
        }
    }
    return end;
}

void em_join_distinct(em_join_table *table) {
    em_join_index(table);
    uint32_t start = 0;
    for (size_t bucket = 0; bucket < table->key_count; bucket++) {
        const uint32_t end = table->ends[bucket];
        for (uint32_t i = start; i < end; i++) {
            uint8_t *row = table->memory + (table->entries[i] & OFFSET_MASK);
            if (find(table, start, i, table->entries[i] & ~OFFSET_MASK, row) < i) {
                mark(row);
            }
        }
        start = end;
    }
    size_t kept = 0, count = 0, keys = 0;
    for (size_t at = 0; at < table->rows_bytes;) {
        const uint8_t *row = table->memory + at;
        const uint32_t bytes = em_row_bytes(row);
        if (!em_is_matched(row)) {
            keys += em_row_key_bytes(row) > 0;
            memmove(table->memory + kept, row, bytes);
            kept += bytes;
            count++;
        }
        at += bytes;
    }
    table->rows_bytes = kept;
    table->row_count = count;
    table->key_count = keys;
    table->indexed = false;
}

static bool is_sequenced(unsigned flags, bool is_right) {
    return (flags & (is_right ? EM_JOIN_RIGHT_SEQUENCED : EM_JOIN_SEQUENCED)) != 0;
}

/* One probe row of a group, and the entries to compare it with. */
typedef struct {
    const uint8_t *row;
    uint64_t hash;
    uint32_t next, end;
} candidate;

/* Read up to GROUP rows, and prefetch the buckets, entries and build rows that they need: their
 * cache misses then overlap. */
static size_t gather(const em_join_table *table, const em_join_probe *probe, candidate *group,
                     bool *damaged) {
    size_t count = 0;
    const bool sequenced = is_sequenced(probe->flags, (probe->flags & EM_JOIN_SWAPPED) != 0);
    for (size_t at = probe->at; at < probe->size && count < GROUP; count++) {
        candidate *one = &group[count];
        one->row = em_spilled_row_at(probe->block, probe->size, at, sequenced);
        if (one->row == NULL) {
            *damaged = true;
            break;
        }
        one->hash = hash_of(one->row);
        if (table->key_count > 0) {
            __builtin_prefetch(&table->ends[bucket_of(table, one->hash)]);
        }
        at += em_row_bytes(one->row);
    }
    for (size_t i = 0; i < count; i++) {
        const bool findable = table->key_count > 0 && em_joined_key_bytes(group[i].row) > 0;
        const uint32_t bucket = findable ? bucket_of(table, group[i].hash) : 0;
        group[i].next = findable ? bucket_start(table, bucket) : 0;
        group[i].end = findable ? table->ends[bucket] : 0;
        if (findable) {
            __builtin_prefetch(&table->entries[group[i].next]);
        }
    }
    for (size_t i = 0; i < count; i++) {
        if (group[i].next < group[i].end) {
            __builtin_prefetch(table->memory + (table->entries[group[i].next] & OFFSET_MASK));
        }
    }
    return count;
}

/* A build row as a side; `place` receives its number when that is its offset. */
static em_side built_side(const em_join_table *table, const uint8_t *row, unsigned flags,
                          uint8_t place[EM_NUMBER_BYTES]) {
    em_side side = em_side_of(row, is_sequenced(flags, (flags & EM_JOIN_SWAPPED) == 0));
    if (flags & EM_JOIN_OFFSET_NUMBERS) {
        const uint64_t offset = (uint64_t)(row - table->memory);
        for (unsigned i = 0; i < EM_NUMBER_BYTES; i++) {
            place[i] = (uint8_t)(offset >> (56 - 8 * i));
        }
        side.number = place;
    }
    return side;
}

/* Write a side of a joined row with the other one, in the order left, right. */
static bool write_sides(em_join_output *out, em_side side, em_side other, bool is_right) {
    return em_write_joined(out, is_right ? other : side, is_right ? side : other);
}

static bool write_pair(const em_join_table *table, em_join_output *out, const uint8_t *probe_row,
                       const uint8_t *build_row, unsigned flags) {
    const bool swapped = (flags & EM_JOIN_SWAPPED) != 0;
    uint8_t place[EM_NUMBER_BYTES];
    return write_sides(out, em_side_of(probe_row, is_sequenced(flags, swapped)),
                       built_side(table, build_row, flags, place), swapped);
}

static em_side absent_side(bool is_right, unsigned flags) {
    const bool by_offset = !is_right && (flags & EM_JOIN_OFFSET_NUMBERS) != 0;
    return em_absent_side(is_right, is_sequenced(flags, is_right) || by_offset);
}

static bool write_probe_null_extended(em_join_output *out, const uint8_t *row, unsigned flags) {
    const bool is_right = (flags & EM_JOIN_SWAPPED) != 0;
    return write_sides(out, em_side_of(row, is_sequenced(flags, is_right)),
                       absent_side(!is_right, flags), is_right);
}

static bool write_build_null_extended(const em_join_table *table, em_join_output *out,
                                      const uint8_t *row, unsigned flags) {
    const bool is_right = (flags & EM_JOIN_SWAPPED) == 0;
    uint8_t place[EM_NUMBER_BYTES];
    return write_sides(out, built_side(table, row, flags, place), absent_side(!is_right, flags),
                       is_right);
}

/* Join one probe row with the entries from `one->next` on; false when `out` is full, and the table
 * remembers the entry to continue with. */
static bool probe_row(em_join_table *table, const candidate *one, unsigned flags, bool matched,
                      em_join_output *out, bool *matched_now) {
    const uint64_t tag = tag_of(one->hash) & ~OFFSET_MASK;
    uint32_t next = one->next;
    table->inside = true;
    while ((next = find(table, next, one->end, tag, one->row)) < one->end) {
        uint8_t *build_row = table->memory + (table->entries[next] & OFFSET_MASK);
        table->next = next;
        table->matched = matched;
        if ((flags & EM_JOIN_PAIRS) && !write_pair(table, out, one->row, build_row, flags)) {
            return false;
        }
        if ((flags & EM_JOIN_MATCHED) && !matched &&
            !write_probe_null_extended(out, one->row, flags)) {
            return false;
        }
        matched = true;
        if (flags & EM_JOIN_MARK) {
            mark(build_row);
        } else if (!(flags & EM_JOIN_PAIRS)) {
            break; /* the first match decides */
        }
        next++;
    }
    table->next = next;
    table->matched = matched;
    if ((flags & EM_JOIN_UNMATCHED) && !matched &&
        !write_probe_null_extended(out, one->row, flags)) {
        return false;
    }
    table->inside = false;
    *matched_now = matched;
    return true;
}

enum em_walk em_join_probe_rows(em_join_table *table, em_join_probe *probe, em_join_output *out) {
    candidate group[GROUP];
    bool damaged = false;
    while (probe->at < probe->size) {
        const size_t count = gather(table, probe, group, &damaged);
        for (size_t i = 0; i < count; i++) {
            const size_t bit = probe->first_bit + probe->passed;
            const uint8_t mask = (uint8_t)(1u << (bit & 7));
            const bool known = probe->bits != NULL && (probe->bits[bit >> 3] & mask);
            bool matched = em_is_matched(group[i].row);
            if (table->inside) {
                group[i].next = table->next;
                matched = table->matched;
            }
            const bool skipped = known && (probe->flags & EM_JOIN_MATCHED);
            if (!skipped && !probe_row(table, &group[i], probe->flags, matched, out, &matched)) {
                return EM_WALK_FULL;
            }
            if (probe->bits != NULL && matched) {
                probe->bits[bit >> 3] |= mask;
            }
            probe->at += em_row_bytes(group[i].row);
            probe->passed++;
        }
        if (damaged) {
            return EM_WALK_DAMAGED;
        }
    }
    return EM_WALK_ON;
}

enum em_walk em_join_drain(em_join_table *table, bool matched, unsigned flags,
                           em_join_output *out) {
    while (table->drained < table->rows_bytes) {
        const uint8_t *row = table->memory + table->drained;
        if (em_is_matched(row) == matched && !write_build_null_extended(table, out, row, flags)) {
            return EM_WALK_FULL;
        }
        table->drained += em_row_bytes(row);
    }
    return EM_WALK_ON;
}
