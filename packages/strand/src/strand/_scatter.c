/* Copy columns to slots. See _columns.h. */
#include <string.h>

#include "_columns.h"

enum {
    BLOCK_ROWS = 256,            /* filled field by field: a few KiB of slots */
    PIECE_BYTES = 256 * 1024,    /* of slots, published at once: a part of a second-level cache,
                                  * so that the consumer reads them from there */
    PIECE_PAYLOADS = 256 * 1024, /* bytes of heap that go with them */
    V5_PAYLOAD_MAX = 0xFFFF,
};

static uint64_t least(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

static uint64_t round_up(uint64_t value, uint64_t align) {
    return (value + align - 1) & ~(align - 1);
}

static bool bit_at(const unsigned char *bits, uint64_t at) {
    return (bits[at >> 3] >> (at & 7) & 1) != 0;
}

static bool is_present(const strand_source *source, uint64_t row) {
    return source->valid == NULL || bit_at(source->valid, source->valid_bit + row);
}

/* Byte of data at which the payload of `row` starts; payload_at(row + 1) is its end. */
static uint64_t payload_at(const strand_source *source, uint64_t row) {
    if (source->form == COLUMN_OFFSETS32) {
        int32_t offset;
        memcpy(&offset, source->offsets + row * sizeof offset, sizeof offset);
        return (uint64_t)(int64_t)offset * source->place.item_bytes;
    }
    int64_t offset;
    memcpy(&offset, source->offsets + row * sizeof offset, sizeof offset);
    return (uint64_t)offset * source->place.item_bytes;
}

/* ---- checks, before anything is written ----------------------------------------------------- */

static int check_nulls(const strand_source *source, uint64_t rows) {
    if (source->place.null_bit >= 0 || source->valid == NULL)
        return STRAND_OK;
    for (uint64_t row = 0; row < rows; row++)
        if (!is_present(source, row))
            return COLUMN_NULL;
    return STRAND_OK;
}

static int check_handles(const strand_source *source, uint64_t rows, uint64_t *detail) {
    if (source->place.handles == 0)
        return STRAND_OK;
    for (uint64_t row = 0; row < rows; row++) {
        uint32_t handle;
        memcpy(&handle, source->values + (ptrdiff_t)row * source->step, sizeof handle);
        if (handle >= source->place.handles && is_present(source, row)) {
            *detail = handle;
            return COLUMN_HANDLE;
        }
    }
    return STRAND_OK;
}

/* Check that offsets do not decrease and stay inside the data; raise `*longest` to the longest
 * payload. */
static int check_offsets(const strand_source *source, uint64_t rows, uint64_t *longest) {
    uint64_t start = payload_at(source, 0);
    for (uint64_t row = 0; row < rows; row++) {
        const uint64_t end = payload_at(source, row + 1);
        if (end < start || end > source->values_bytes)
            return STRAND_CORRUPT;
        if (end - start > *longest && is_present(source, row))
            *longest = end - start;
        start = end;
    }
    return STRAND_OK;
}

/* The heap bytes of rows [row, row + count) as copy_payloads arranges them: all payloads of one
 * field, then those of the next. */
static uint64_t block_bytes(const strand_batch *batch, uint64_t row, uint64_t count) {
    uint64_t end = 0;
    for (uint32_t at = 0; at < batch->count; at++) {
        const strand_source *source = &batch->sources[at];
        const uint64_t align = source->place.heap_align;
        if (align == 0)
            continue;
        if (align == 1 && source->valid == NULL) {
            end += payload_at(source, row + count) - payload_at(source, row);
            continue;
        }
        for (uint64_t i = row; i < row + count; i++) {
            const uint64_t bytes = payload_at(source, i + 1) - payload_at(source, i);
            if (bytes != 0 && is_present(source, i))
                end = round_up(end, align) + bytes;
        }
    }
    return end;
}

int strand_check_batch(const strand_producer *producer, const strand_batch *batch, uint32_t *field,
                       uint64_t *detail) {
    const strand_ring *ring = &producer->ring;
    const uint64_t limit = ring->heap_capacity / 2;
    uint64_t bound = 0; /* upper bound of the heap bytes of one record */
    for (uint32_t at = 0; at < batch->count && batch->rows != 0; at++) {
        const strand_source *source = &batch->sources[at];
        *field = at;
        int result = check_nulls(source, batch->rows);
        if (result == STRAND_OK && source->place.heap_align == 0)
            result = check_handles(source, batch->rows, detail);
        if (result == STRAND_OK && source->place.heap_align != 0) {
            uint64_t longest = 0;
            result = check_offsets(source, batch->rows, &longest);
            if (result == STRAND_OK && ring->version == 5 && longest > V5_PAYLOAD_MAX)
                result = STRAND_TOO_LARGE;
            *detail = longest;
            bound = round_up(bound, source->place.heap_align) + longest;
        }
        if (result != STRAND_OK)
            return result;
    }
    if (bound <= limit)
        return STRAND_OK;
    *field = UINT32_MAX;
    for (uint64_t row = 0; row < batch->rows; row++) {
        *detail = block_bytes(batch, row, 1);
        if (*detail > limit)
            return STRAND_TOO_LARGE;
    }
    return STRAND_OK;
}

/* ---- values in the slot --------------------------------------------------------------------- */

/* One function for each width, so that the copy is a load and a store. */
#define COPY_VALUES(name, type)                                                                    \
    static void name(unsigned char *slot, size_t stride, const unsigned char *from,                \
                     ptrdiff_t step, size_t count) {                                               \
        for (size_t i = 0; i < count; i++) {                                                       \
            type value;                                                                            \
            memcpy(&value, from, sizeof value);                                                    \
            memcpy(slot, &value, sizeof value);                                                    \
            slot += stride;                                                                        \
            from += step;                                                                          \
        }                                                                                          \
    }
COPY_VALUES(copy_1, uint8_t)
COPY_VALUES(copy_2, uint16_t)
COPY_VALUES(copy_4, uint32_t)
COPY_VALUES(copy_8, uint64_t)

/* Two neighbours of four bytes in one store: stores are what these loops are short of. */
static void copy_pair(unsigned char *slot, size_t stride, const unsigned char *low,
                      ptrdiff_t low_step, const unsigned char *high, ptrdiff_t high_step,
                      size_t count) {
    for (size_t i = 0; i < count; i++) {
        uint32_t first, second;
        memcpy(&first, low, sizeof first);
        memcpy(&second, high, sizeof second);
        const uint64_t both = first | (uint64_t)second << 32;
        memcpy(slot, &both, sizeof both);
        slot += stride;
        low += low_step;
        high += high_step;
    }
}

static bool is_pair(const strand_source *low, const strand_source *high) {
    return low->place.width == 4 && high->place.width == 4 &&
           high->place.offset == low->place.offset + 4 && low->valid == NULL && high->valid == NULL;
}

static void copy_bits(unsigned char *slot, size_t stride, const unsigned char *bits, uint64_t first,
                      size_t count) {
    for (size_t i = 0; i < count; i++)
        slot[i * stride] = bit_at(bits, first + i);
}

static void copy_values(const strand_source *source, uint64_t row, unsigned char *slot,
                        size_t stride, size_t count) {
    const strand_place *place = &source->place;
    slot += place->offset;
    if (source->form == COLUMN_BITS) {
        copy_bits(slot, stride, source->values, source->first_bit + row, count);
        return;
    }
    const unsigned char *from = source->values + (ptrdiff_t)row * source->step;
    if (place->width == 8)
        copy_8(slot, stride, from, source->step, count);
    else if (place->width == 4)
        copy_4(slot, stride, from, source->step, count);
    else if (place->width == 2)
        copy_2(slot, stride, from, source->step, count);
    else
        copy_1(slot, stride, from, source->step, count);
}

/* Zero the values of nulls and clear their bits in the null bitmap. */
static void clear_nulls(const strand_source *source, uint64_t row, unsigned char *slot,
                        size_t stride, size_t count) {
    const strand_place *place = &source->place;
    const unsigned char bit = (unsigned char)(1U << (place->null_bit & 7));
    for (size_t i = 0; i < count; i++, slot += stride) {
        if (is_present(source, row + i))
            continue;
        slot[place->null_bit >> 3] &= (unsigned char)~bit;
        if (place->heap_align == 0)
            memset(slot + place->offset, 0, place->width);
    }
}

/* Fill `count` contiguous slots, except their heap pointers. */
static void fill_block(const strand_batch *batch, uint64_t row, unsigned char *slots, size_t stride,
                       size_t count) {
    if (!batch->gapless)
        memset(slots, 0, count * stride);
    if (batch->bitmap_bytes != 0) {
        unsigned char *bitmap = slots;
        for (uint32_t at = 0; at < batch->count; at++) {
            const int32_t bit = batch->sources[at].place.null_bit;
            if (bit >= 0)
                bitmap[bit >> 3] |= (unsigned char)(1U << (bit & 7));
        }
        for (size_t i = 1; i < count; i++)
            memcpy(slots + i * stride, bitmap, batch->bitmap_bytes);
    }
    for (uint32_t at = 0; at < batch->count; at++) {
        const strand_source *source = &batch->sources[at];
        if (at + 1 < batch->count && is_pair(source, source + 1)) {
            const strand_source *next = &batch->sources[++at];
            copy_pair(slots + source->place.offset, stride,
                      source->values + (ptrdiff_t)row * source->step, source->step,
                      next->values + (ptrdiff_t)row * next->step, next->step, count);
            continue;
        }
        if (source->place.heap_align == 0)
            copy_values(source, row, slots, stride, count);
        if (source->valid != NULL && source->place.null_bit >= 0)
            clear_nulls(source, row, slots, stride, count);
    }
}

/* ---- payloads ------------------------------------------------------------------------------- */

static void store_pointer(const strand_ring *ring, unsigned char *where, uint64_t offset,
                          uint64_t bytes) {
    if (ring->version == 5) {
        const uint32_t low = (uint32_t)offset;
        const uint16_t length = (uint16_t)bytes;
        memcpy(where, &low, sizeof low);
        memcpy(where + sizeof low, &length, sizeof length);
    } else {
        memcpy(where, &offset, sizeof offset);
        memcpy(where + sizeof offset, &bytes, sizeof bytes); /* u32 length, u32 zero */
    }
}

/* Copy the payloads of one field to the heap from `start` on and store their pointers; return the
 * end offset. Payloads adjacent in both the column and the heap are copied as one run. */
static uint64_t copy_payloads(const strand_ring *ring, const strand_source *source, uint64_t seq,
                              uint64_t row, uint64_t count, uint64_t start) {
    unsigned char *heap = ring->base + ring->heap_start;
    const uint64_t align = source->place.heap_align;
    const uint64_t mask = ring->heap_capacity - 1;
    uint64_t end = start;
    uint64_t run = start; /* heap offset of the run not yet copied … */
    uint64_t from = 0;    /* … and its offset in the column's data */
    for (uint64_t i = 0; i < count; i++) {
        if (!is_present(source, row + i))
            continue;
        const uint64_t begin = payload_at(source, row + i);
        const uint64_t bytes = payload_at(source, row + i + 1) - begin;
        const uint64_t where = bytes == 0 ? end : round_up(end, align);
        unsigned char *slot = ring->base + strand_slot_at(ring, seq + i);
        store_pointer(ring, slot + source->place.offset, where, bytes);
        if (bytes == 0)
            continue;
        if (where != end || begin != from + (end - run)) {
            memcpy(heap + (run & mask), source->values + from, end - run);
            run = where;
            from = begin;
        }
        end = where + bytes;
    }
    if (end != run)
        memcpy(heap + (run & mask), source->values + from, end - run);
    return end;
}

static uint64_t widest_align(const strand_batch *batch) {
    uint64_t align = 0;
    for (uint32_t at = 0; at < batch->count; at++)
        if (batch->sources[at].place.heap_align > align)
            align = batch->sources[at].place.heap_align;
    return align;
}

/* ---- pieces --------------------------------------------------------------------------------- */

static void fill_slots(const strand_ring *ring, const strand_batch *batch, uint64_t seq,
                       uint64_t row, uint64_t count) {
    const size_t stride = ring->stride;
    while (count != 0) {
        const uint64_t before_end = ring->capacity - (seq & (ring->capacity - 1));
        uint64_t rows = least(count, before_end);
        unsigned char *slots = ring->base + strand_slot_at(ring, seq);
        if (batch->slots != NULL) {
            memcpy(slots, batch->slots + row * stride, rows * stride);
        } else {
            rows = least(rows, BLOCK_ROWS);
            fill_block(batch, row, slots, stride, rows);
        }
        seq += rows;
        row += rows;
        count -= rows;
    }
}

/* The number of rows of the next piece, and its heap bytes. */
static uint64_t size_piece(const strand_producer *producer, const strand_batch *batch,
                           uint64_t done, uint64_t room, uint64_t *heap_bytes) {
    const strand_ring *ring = &producer->ring;
    const uint64_t piece = PIECE_BYTES / ring->stride;
    uint64_t count = least(least(batch->rows - done, room), piece == 0 ? 1 : piece);
    const uint64_t limit = least(ring->heap_capacity / 4, PIECE_PAYLOADS);
    *heap_bytes = batch->slots != NULL ? 0 : block_bytes(batch, done, count);
    while (*heap_bytes > limit && count > 1) {
        count /= 2;
        *heap_bytes = block_bytes(batch, done, count);
    }
    return count;
}

int strand_scatter(strand_producer *producer, const strand_batch *batch, uint64_t *done,
                   uint64_t *threshold) {
    const strand_ring *ring = &producer->ring;
    const uint64_t align = batch->slots == NULL ? widest_align(batch) : 0;
    while (*done < batch->rows) {
        const uint64_t left = batch->rows - *done;
        uint64_t room = 0;
        uint64_t bytes = 0;
        uint64_t seq = 0;
        uint64_t start = 0;
        int result = strand_room(producer, least(left, ring->capacity), &room);
        if (result != STRAND_OK)
            return result;
        if (room == 0) { /* wait for an eighth of the ring: one wake-up for many records */
            result =
                strand_claim_span(producer, least(left, (ring->capacity + 7) / 8), &seq, threshold);
            strand_abandon(producer);
            if (result != STRAND_OK)
                return result;
            continue; /* slots were acknowledged between the two checks */
        }
        const uint64_t count = size_piece(producer, batch, *done, room, &bytes);
        result = strand_claim_heap(producer, bytes, align == 0 ? 1 : align, &start, threshold);
        if (result == STRAND_OK)
            result = strand_claim_span(producer, count, &seq, threshold);
        if (result != STRAND_OK) {
            strand_abandon(producer);
            return result;
        }
        fill_slots(ring, batch, seq, *done, count);
        for (uint32_t at = 0; at < batch->count && align != 0; at++)
            if (batch->sources[at].place.heap_align != 0)
                start = copy_payloads(ring, &batch->sources[at], seq, *done, count, start);
        STRAND_INVARIANT(start <= producer->heap_write || align == 0); /* block_bytes was right */
        strand_seal(producer, count);
        strand_publish(producer);
        *done += count;
    }
    return STRAND_OK;
}
