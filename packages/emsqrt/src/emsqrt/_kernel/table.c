/* Find and create groups by hash. Rows are added in batches, and each step loops over the whole
 * batch, so that memory which a later step needs is prefetched. */
#include "table.h"

#include <assert.h>

#define FIRST_BUCKETS 512u /* 4 KiB, of EM_TABLE_BYTES_MIN at least */
#define BATCH_ROWS_MIN 16u /* a table without room for this many rows counts as full */
#define LEAST_FREE 4096u   /* for records, after the buckets have been doubled */

static inline uint64_t load64(const uint8_t *at) {
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

static inline uint64_t fold(uint64_t left, uint64_t right) {
    const em_u128 product = (em_u128)left * right;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* Whether two keys of the same length are equal; comparing a few words inline is faster than a
 * call. */
static inline bool same_bytes(const uint8_t *left, const uint8_t *right, size_t bytes) {
    if (bytes < 8 || bytes > 32) {
        return bytes == 0 || memcmp(left, right, bytes) == 0;
    }
    uint64_t differs = load64(left + bytes - 8) ^ load64(right + bytes - 8);
    for (size_t at = 0; at + 8 < bytes; at += 8) {
        differs |= load64(left + at) ^ load64(right + at);
    }
    return differs == 0;
}

/* The hash of a key in the table, by folded 64-bit products with constants of Wang Yi's wyhash; no
 * output depends on it. */
static uint64_t hash_key(const uint8_t *key, size_t bytes) {
    const uint64_t one = UINT64_C(0xa0761d6478bd642f), two = UINT64_C(0xe7037ed1a0b428db);
    uint64_t hash = bytes * two;
    const uint8_t *end = key + bytes;
    for (; end - key > 16; key += 16) {
        hash = fold(load64(key) ^ one ^ hash, load64(key + 8) ^ two);
    }
    if (end - key >= 8) {
        return fold(load64(key) ^ one ^ hash, load64(end - 8) ^ two) ^ hash >> 7;
    }
    uint64_t tail = 0;
    memcpy(&tail, key, (size_t)(end - key));
    return fold(tail ^ one ^ hash, two);
}

bool em_table_open(em_table *table, uint8_t *memory, size_t bytes, bool for_long) {
    const size_t lost = (8 - (uintptr_t)memory % 8) % 8;
    if (bytes < EM_TABLE_BYTES_MIN) {
        return false;
    }
    uint8_t *base = memory + lost;
    bytes = (bytes - lost) & ~(size_t)7;
    table->end = base + bytes;
    table->scratch = base;
    table->scratch_bytes = bytes / 16 < 32768 ? (bytes / 16) & ~(size_t)7 : 32768;
    if (for_long) {
        table->scratch_bytes = (bytes / 4) & ~(size_t)7;
    }
    table->heap.memory = base + table->scratch_bytes;
    table->bucket_count = FIRST_BUCKETS;
    table->differences = (em_key_differences){0};
    table->rows = 0;
    table->heap.text_bytes_max = 0;
    em_table_reset(table);
    return true;
}

static void place_buckets(em_table *table) {
    table->buckets = (uint64_t *)(void *)(table->end - 8 * table->bucket_count);
    memset(table->buckets, 0, 8 * table->bucket_count);
    assert((uint8_t *)table->buckets > table->heap.memory);
    table->heap.limit = (size_t)((uint8_t *)table->buckets - table->heap.memory);
}

void em_table_reset(em_table *table) {
    table->heap.used = 8; /* so that no record has offset 0, which marks an empty bucket */
    table->heap.failed = false;
    table->groups = 0;
    table->sorted = false;
    place_buckets(table);
}

static uint64_t bucket_of(uint64_t hash, uint32_t offset) {
    return (hash & UINT64_C(0xFFFFFFFF00000000)) | offset;
}

static size_t record_bytes(const em_table *table, size_t key_bytes) {
    return em_align8(table->layout.fixed_bytes + key_bytes);
}

/* Double the buckets and fill them from the records in memory order; false when they do not fit. */
static bool grow_buckets(em_table *table) {
    const size_t more = 8 * table->bucket_count;
    if (table->heap.limit - table->heap.used < more + LEAST_FREE) {
        return false;
    }
    table->bucket_count *= 2;
    place_buckets(table);
    const size_t mask = table->bucket_count - 1;
    for (size_t at = 8; at < table->heap.used;) {
        const uint8_t *piece = table->heap.memory + at;
        const uint32_t first = em_load32(piece);
        if (first == EM_HEAP_MARK) {
            at += em_load32(piece + 4);
            continue;
        }
        const uint64_t hash = hash_key(em_record_key(table, piece), first);
        size_t slot = (size_t)hash & mask;
        while (table->buckets[slot] != 0) {
            slot = (slot + 1) & mask;
        }
        table->buckets[slot] = bucket_of(hash, (uint32_t)(at / 8));
        at += record_bytes(table, first);
    }
    return true;
}

static uint8_t *make_record(em_table *table, const uint8_t *key, size_t bytes) {
    uint8_t *record = table->heap.memory + table->heap.used;
    memset(record, 0, table->layout.fixed_bytes);
    em_store32(record, (uint32_t)bytes);
    memcpy(record + table->layout.fixed_bytes, key, bytes);
    table->heap.used += record_bytes(table, bytes);
    table->groups++;
    em_key_differences_add(&table->differences, key, (uint32_t)bytes);
    return record;
}

/* Return the record of a key, creating it if necessary; the caller has checked that one more fits.
 * Linear probing ends because half of the buckets are always empty. */
static uint8_t *find(em_table *table, const uint8_t *key, size_t bytes, uint64_t hash) {
    const size_t mask = table->bucket_count - 1;
    for (size_t slot = (size_t)hash & mask;; slot = (slot + 1) & mask) {
        const uint64_t entry = table->buckets[slot];
        if (entry == 0) {
            table->buckets[slot] = bucket_of(hash, (uint32_t)(table->heap.used / 8));
            return make_record(table, key, bytes);
        }
        if ((entry ^ hash) >> 32 == 0) {
            uint8_t *record = em_table_record(table, entry);
            if (em_load32(record) == bytes &&
                same_bytes(em_record_key(table, record), key, bytes)) {
                return record;
            }
        }
    }
}

/* The keys of a batch of rows, encoded in the scratch. */
typedef struct {
    size_t count, growth; /* growth: the bytes of new records if every key is new */
    uint32_t ends[EM_ROW_BATCH_MAX + 1];
} batch_keys;

static size_t min_size(size_t left, size_t right) {
    return left < right ? left : right;
}

/* Encode keys of `bytes` bytes each. */
static void encode_fixed(em_table *table, const em_columns *columns, size_t start, size_t count,
                         size_t bytes, batch_keys *keys) {
    em_key_encode_rows(&table->keys, columns, start, count, bytes, table->scratch);
    for (size_t i = 0; i <= count; i++) {
        keys->ends[i] = (uint32_t)(i * bytes);
    }
    keys->count = count;
    keys->growth = count * record_bytes(table, bytes);
}

/* Encode keys from `start` on, while they fit the scratch and their records fit `room`. */
static void encode_keys(em_table *table, const em_columns *columns, size_t start, size_t count,
                        size_t room, batch_keys *keys) {
    const size_t fixed = em_key_fixed_bytes(&table->keys, columns);
    const size_t limit = table->limit > 0 ? min_size(table->limit, table->scratch_bytes) : SIZE_MAX;
    size_t used = 0, records = 0, i = 0;
    if (fixed > 0 && fixed <= limit) {
        const size_t fit =
            min_size(table->scratch_bytes / fixed, room / record_bytes(table, fixed));
        encode_fixed(table, columns, start, min_size(count, fit), fixed, keys);
        return;
    }
    keys->ends[0] = 0;
    for (; i < count; i++) {
        const size_t bytes = em_key_bytes(&table->keys, columns, start + i);
        const size_t record = record_bytes(table, bytes);
        if (used + bytes > table->scratch_bytes || records + record > room || bytes > limit) {
            table->refused = i == 0 && bytes > limit ? bytes : 0;
            break;
        }
        (void)em_key_encode(&table->keys, columns, start + i, table->scratch + used);
        used += bytes;
        records += record;
        keys->ends[i + 1] = (uint32_t)used;
    }
    keys->count = i;
    keys->growth = records;
}

static bool same_key(const em_table *table, const batch_keys *keys, size_t left, size_t right) {
    const size_t bytes = keys->ends[left + 1] - keys->ends[left];
    return bytes == keys->ends[right + 1] - keys->ends[right] &&
           same_bytes(table->scratch + keys->ends[left], table->scratch + keys->ends[right], bytes);
}

/* Find the record of each row; a row with the key of the row before needs no lookup. Return whether
 * all rows share one record. */
static bool find_records(em_table *table, const batch_keys *keys, uint8_t **records) {
    uint64_t hashes[EM_ROW_BATCH_MAX];
    uint16_t fresh[EM_ROW_BATCH_MAX + 1];
    size_t fresh_count = 0;
    const size_t mask = table->bucket_count - 1;
    for (size_t i = 0; i < keys->count; i++) {
        if (i > 0 && same_key(table, keys, i - 1, i)) {
            continue;
        }
        const uint32_t from = keys->ends[i];
        const uint64_t hash = hash_key(table->scratch + from, keys->ends[i + 1] - from);
        hashes[fresh_count] = hash;
        fresh[fresh_count++] = (uint16_t)i;
        __builtin_prefetch(&table->buckets[(size_t)hash & mask]);
    }
    for (size_t i = 0; i < fresh_count; i++) {
        const uint64_t entry = table->buckets[(size_t)hashes[i] & mask];
        if (entry != 0) {
            const uint8_t *record = em_table_record(table, entry);
            __builtin_prefetch(record);
            __builtin_prefetch(em_record_key(table, record));
        }
    }
    fresh[fresh_count] = (uint16_t)keys->count;
    for (size_t i = 0; i < fresh_count; i++) {
        const size_t row = fresh[i];
        const uint32_t from = keys->ends[row];
        uint8_t *record = find(table, table->scratch + from, keys->ends[row + 1] - from, hashes[i]);
        for (size_t same = row; same < fresh[i + 1]; same++) {
            records[same] = record;
        }
    }
    return fresh_count == 1;
}

/* Return how many of `count` rows come before the first whose texts are over the limit. */
static size_t short_texts(em_table *table, const em_columns *columns, size_t start, size_t count) {
    if (table->limit == 0 ||
        em_row_batch_texts(&table->layout, columns, start, count) <= table->limit) {
        return count;
    }
    for (size_t i = 0; i < count; i++) {
        const size_t bytes = em_row_batch_texts(&table->layout, columns, start + i, 1);
        if (bytes > table->limit) {
            table->refused = i == 0 ? bytes : 0;
            return i;
        }
    }
    return count;
}

/* Return how many rows from `start` on certainly fit the table, even if every key is new; 0 when it
 * is full. */
static size_t admit(em_table *table, const em_columns *key_columns, size_t key_start,
                    const em_columns *columns, size_t start, batch_keys *keys) {
    size_t count = columns->row_count - start;
    count = count < EM_ROW_BATCH_MAX ? count : EM_ROW_BATCH_MAX;
    while (table->groups + count > table->bucket_count / 2 && grow_buckets(table)) {
    }
    const size_t slots = table->bucket_count / 2 - table->groups;
    count = count < slots ? count : slots;
    const size_t shown = short_texts(table, columns, start, count);
    const size_t left = shown < count ? shown : columns->row_count - start;
    for (count = shown; count > 0 && table->refused == 0; count /= 2) {
        if (count < BATCH_ROWS_MIN && count < left && table->groups > 0) {
            return 0;
        }
        const size_t room = table->heap.limit - table->heap.used;
        const size_t growth = em_row_batch_growth(&table->layout, columns, start, count);
        if (growth >= room) {
            continue;
        }
        encode_keys(table, key_columns, key_start, count, room - growth, keys);
        if (keys->count == count || keys->count >= BATCH_ROWS_MIN ||
            (keys->count > 0 && table->groups == 0)) {
            return keys->count;
        }
        /* The scratch was too small for long keys, but the table is not full: add the rows whose
         * keys fit. */
        if (keys->count > 0 && keys->growth < room / 2) {
            return keys->count;
        }
    }
    return 0;
}

/* Add a batch of `columns`; its keys are read from `key_columns`, from `key_start` on. */
static size_t add_batch(em_table *table, const em_columns *key_columns, size_t key_start,
                        const em_columns *columns, size_t start) {
    batch_keys keys;
    uint8_t *records[EM_ROW_BATCH_MAX];
    const size_t count = admit(table, key_columns, key_start, columns, start, &keys);
    if (count == 0) {
        return 0;
    }
    const em_row_batch batch = {
        .columns = columns,
        .start = start,
        .count = count,
        .records = records,
        .one = find_records(table, &keys, records),
        .sequence = table->rows,
        .heap = &table->heap,
    };
    if (!em_accumulate(&table->layout, &batch) || table->heap.failed) {
        table->fault = EM_TABLE_DAMAGED;
    }
    table->rows += count;
    return count;
}

/* Add a batch with keys whose last column is null. */
static size_t add_heading(em_table *table, const em_columns *columns, size_t start) {
    static const uint8_t none_valid[EM_ROW_BATCH_MAX / 8];
    em_column *sliced = table->sliced;
    const size_t count = em_key_columns(&table->keys);
    if (columns->column_count < count || table->keys.count == 0) {
        table->fault = EM_TABLE_DAMAGED;
        return 0;
    }
    const size_t left = columns->row_count - start;
    em_columns view = {
        .row_count = left < EM_ROW_BATCH_MAX ? left : EM_ROW_BATCH_MAX,
        .column_count = count,
        .columns = sliced,
    };
    memcpy(sliced, columns->columns, count * sizeof *sliced);
    for (size_t i = 0; i < count; i++) {
        sliced[i].offset += start;
    }
    em_column *last = &sliced[table->keys.parts[table->keys.count - 1].column];
    last->validity = none_valid; /* no other part of the column is read, as every value is null */
    last->offset = 0;
    return add_batch(table, &view, 0, columns, start);
}

size_t em_table_add(em_table *table, const em_columns *columns, size_t start, bool heading) {
    size_t added = 0;
    table->fault = EM_TABLE_OK;
    table->refused = 0;
    while (start + added < columns->row_count && table->fault == EM_TABLE_OK) {
        const size_t at = start + added;
        const size_t now =
            heading ? add_heading(table, columns, at) : add_batch(table, columns, at, columns, at);
        if (now == 0) {
            if (table->groups == 0 && table->fault == EM_TABLE_OK) {
                table->fault = EM_TABLE_TOO_LARGE;
            }
            break;
        }
        added += now;
    }
    return added;
}

/* Return the record of key number `code`, creating it if necessary with `growth` bytes to spare; NULL
 * when the table is full or the key is refused. */
static uint8_t *coded_record(em_table *table, const em_columns *keys, size_t code, size_t growth) {
    const size_t bytes = em_key_bytes(&table->keys, keys, code);
    if (table->limit > 0 && bytes > table->limit) {
        table->refused = bytes;
        return NULL;
    }
    while (table->groups + 1 > table->bucket_count / 2 && grow_buckets(table)) {
    }
    if (bytes > table->scratch_bytes || table->groups + 1 > table->bucket_count / 2 ||
        table->heap.limit - table->heap.used < record_bytes(table, bytes) + growth) {
        return NULL;
    }
    (void)em_key_encode(&table->keys, keys, code, table->scratch);
    return find(table, table->scratch, bytes, hash_key(table->scratch, bytes));
}

/* Find the records of up to `count` rows; return how many were found before the table was full. */
static size_t coded_records(em_table *table, const em_coded_rows *rows, size_t start, size_t count,
                            size_t growth, uint8_t **records) {
    for (size_t i = 0; i < count; i++) {
        const size_t code = (size_t)rows->codes[start + i];
        if (rows->places[code] == 0) {
            const uint8_t *record = coded_record(table, rows->keys, code, growth);
            if (record == NULL) {
                /* Only the first row of a call is refused: those before this one are added first.
                 */
                table->refused = i == 0 ? table->refused : 0;
                return i;
            }
            rows->places[code] = (uint32_t)((record - table->heap.memory) / 8);
        }
        records[i] = em_heap_at(&table->heap, rows->places[code]);
    }
    return count;
}

static bool are_same(uint8_t *const *records, size_t count) {
    bool same = true;
    for (size_t i = 1; i < count; i++) {
        same &= records[i] == records[0];
    }
    return same;
}

size_t em_table_add_coded(em_table *table, const em_coded_rows *rows, const em_columns *columns,
                          size_t start) {
    size_t at = start;
    table->fault = EM_TABLE_OK;
    table->refused = 0;
    while (at < columns->row_count && table->fault == EM_TABLE_OK) {
        uint8_t *records[EM_ROW_BATCH_MAX];
        const size_t room = table->heap.limit - table->heap.used;
        size_t count = min_size(columns->row_count - at, EM_ROW_BATCH_MAX);
        size_t growth = em_row_batch_growth(&table->layout, columns, at, count);
        for (; count > 0 && growth >= room; count /= 2) {
            growth = em_row_batch_growth(&table->layout, columns, at, count / 2);
        }
        count = coded_records(table, rows, at, count, growth, records);
        if (count == 0) {
            if (table->groups == 0) {
                table->fault = EM_TABLE_TOO_LARGE;
            }
            break;
        }
        const em_row_batch batch = {
            .columns = columns,
            .start = at,
            .count = count,
            .records = records,
            .one = are_same(records, count),
            .sequence = table->rows,
            .heap = &table->heap,
        };
        if (!em_accumulate(&table->layout, &batch) || table->heap.failed) {
            table->fault = EM_TABLE_DAMAGED;
        }
        table->rows += count;
        at += count;
    }
    return at - start;
}

size_t em_table_add_rows(em_table *table, const uint8_t *rows, size_t bytes) {
    size_t consumed = 0;
    table->fault = EM_TABLE_OK;
    table->refused = 0;
    while (bytes - consumed >= EM_ROW_HEAD_BYTES) {
        const uint8_t *row = rows + consumed;
        const size_t row_bytes = em_row_bytes(row), key_bytes = em_row_key_bytes(row);
        if (row_bytes > bytes - consumed || row_bytes < EM_ROW_HEAD_BYTES ||
            key_bytes > row_bytes - EM_ROW_HEAD_BYTES) {
            table->fault = EM_TABLE_DAMAGED;
            break;
        }
        if (table->limit > 0 && row_bytes - EM_ROW_HEAD_BYTES > 2 * table->limit) {
            table->refused = row_bytes;
            break;
        }
        const size_t need =
            record_bytes(table, key_bytes) + em_merge_growth(&table->layout, row_bytes);
        if ((table->groups + 1 > table->bucket_count / 2 && !grow_buckets(table)) ||
            table->heap.limit - table->heap.used < need) {
            table->fault = table->groups == 0 ? EM_TABLE_TOO_LARGE : EM_TABLE_OK;
            break;
        }
        uint8_t *record =
            find(table, em_row_key(row), key_bytes, hash_key(em_row_key(row), key_bytes));
        if (em_merge_packed(&table->layout, record, &table->heap, em_row_payload(row),
                            row + row_bytes) == NULL) {
            table->fault = EM_TABLE_DAMAGED;
            break;
        }
        consumed += row_bytes;
    }
    return consumed;
}

void em_table_sort(em_table *table) {
    size_t filled = 0;
    for (size_t slot = 0; slot < table->bucket_count; slot++) {
        const uint64_t entry = table->buckets[slot];
        if (entry != 0) {
            table->buckets[filled++] = (uint32_t)entry;
        }
    }
    /* The entries now fill the lower half of the buckets at most; the upper half is the scratch. */
    assert(filled == table->groups && filled <= table->bucket_count / 2);
    em_order_groups(table, table->buckets, table->buckets + table->bucket_count / 2, filled);
    table->sorted = true;
}

size_t em_table_row_bound(const em_table *table, size_t group) {
    const uint8_t *record = em_table_record(table, table->buckets[group]);
    return EM_ROW_HEAD_BYTES + em_load32(record) +
           em_pack_bound(&table->layout, record, &table->heap);
}

size_t em_table_drain(em_table *table, size_t first, uint8_t *out, size_t out_bytes,
                      size_t *written) {
    size_t used = 0, at = first;
    for (; at < table->groups; at++) {
        if (at + 8 < table->groups) {
            const uint8_t *ahead = em_table_record(table, table->buckets[at + 8]);
            __builtin_prefetch(ahead);
            __builtin_prefetch(em_record_key(table, ahead));
        }
        uint8_t *record = em_table_record(table, table->buckets[at]);
        const uint32_t key_bytes = em_load32(record);
        const size_t bound =
            EM_ROW_HEAD_BYTES + key_bytes + em_pack_bound(&table->layout, record, &table->heap);
        if (bound > out_bytes - used) {
            break;
        }
        uint8_t *row = out + used;
        memcpy(row + EM_ROW_HEAD_BYTES, em_record_key(table, record), key_bytes);
        const uint8_t *end =
            em_pack(&table->layout, record, &table->heap, row + EM_ROW_HEAD_BYTES + key_bytes);
        const size_t row_bytes = (size_t)(end - row);
        em_store32(row, (uint32_t)row_bytes);
        em_store32(row + 4, key_bytes);
        used += row_bytes;
    }
    *written = used;
    return at - first;
}
