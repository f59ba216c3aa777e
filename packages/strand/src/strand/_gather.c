/* Copy slots to columns. See _columns.h.
 *
 * The producer may be any process that has mapped the segment, so a slot may contain any bytes.
 * Each pointer is copied out of shared memory once, and the copy is checked and used.
 */
#include <string.h>

#include "_columns.h"

enum {
    BLOCK_ROWS = 256, /* a multiple of 8: bits of a block start with a byte */
    V5_POINTER_BYTES = 6,
};

typedef struct {
    uint64_t start; /* byte offset in the segment */
    uint64_t bytes;
} payload;

static uint64_t least(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

/* The number of rows from `seq` on whose slots are contiguous, and the first of these slots. */
static uint64_t straight(const strand_ring *ring, uint64_t seq, uint64_t rows,
                         const unsigned char **slot) {
    *slot = ring->base + strand_slot_at(ring, seq);
    return least(rows, ring->capacity - (seq & (ring->capacity - 1)));
}

/* ---- values in the slot --------------------------------------------------------------------- */

#define COPY_VALUES(name, type)                                                                    \
    static void name(unsigned char *to, const unsigned char *slot, size_t stride, size_t count) {  \
        for (size_t i = 0; i < count; i++) {                                                       \
            type value;                                                                            \
            memcpy(&value, slot, sizeof value);                                                    \
            memcpy(to, &value, sizeof value);                                                      \
            slot += stride;                                                                        \
            to += sizeof value;                                                                    \
        }                                                                                          \
    }
COPY_VALUES(copy_1, uint8_t)
COPY_VALUES(copy_2, uint16_t)
COPY_VALUES(copy_4, uint32_t)
COPY_VALUES(copy_8, uint64_t)

static void copy_truth(unsigned char *to, const unsigned char *slot, size_t stride, size_t count) {
    for (size_t i = 0; i < count; i++)
        to[i] = slot[i * stride] != 0;
}

static void copy_values(const strand_place *place, unsigned char *to, const unsigned char *slot,
                        size_t stride, size_t count) {
    slot += place->offset;
    if (place->truth)
        copy_truth(to, slot, stride, count);
    else if (place->width == 8)
        copy_8(to, slot, stride, count);
    else if (place->width == 4)
        copy_4(to, slot, stride, count);
    else if (place->width == 2)
        copy_2(to, slot, stride, count);
    else
        copy_1(to, slot, stride, count);
}

static void copy_presence(int32_t bit, unsigned char *to, const unsigned char *slot, size_t stride,
                          size_t count) {
    slot += bit >> 3;
    for (size_t i = 0; i < count; i++)
        to[i] = slot[i * stride] >> (bit & 7) & 1;
}

/* Pack bytes of 0 and 1 into bits, least significant first; the last byte is padded with 0. */
static void pack_bits(unsigned char *to, const unsigned char *bytes, size_t count) {
    for (size_t at = 0; at < count; at += 8) {
        uint64_t eight = 0;
        memcpy(&eight, bytes + at, count - at < 8 ? count - at : 8);
        /* one multiplication gathers the low bit of each byte in the top byte */
        *to++ = (unsigned char)((eight * 0x0102040810204080U) >> 56);
    }
}

/* ---- payloads ------------------------------------------------------------------------------- */

static int read_payload(const strand_ring *ring, const unsigned char *pointer, payload *found) {
    uint64_t start = 0;
    if (ring->version == 5) {
        uint32_t low;
        uint16_t length;
        memcpy(&low, pointer, sizeof low);
        memcpy(&length, pointer + sizeof low, sizeof length);
        start = low;
        found->bytes = length;
    } else {
        uint32_t length;
        memcpy(&start, pointer, sizeof start);
        memcpy(&length, pointer + sizeof start, sizeof length);
        found->bytes = length;
    }
    return strand_locate(ring, start, found->bytes, &found->start);
}

/* Read the pointers of `count` records; nulls get length 0. */
static int read_payloads(const strand_ring *ring, const strand_place *place, uint64_t seq,
                         uint64_t count, payload *found, uint64_t *detail) {
    while (count != 0) {
        const unsigned char *slot = NULL;
        const uint64_t rows = straight(ring, seq, count, &slot);
        const int32_t bit = place->null_bit;
        for (uint64_t i = 0; i < rows; i++, slot += ring->stride, found++) {
            *found = (payload){0, 0};
            if (bit >= 0 && (slot[bit >> 3] >> (bit & 7) & 1) == 0)
                continue;
            const int result = read_payload(ring, slot + place->offset, found);
            if (result != STRAND_OK || found->bytes % place->item_bytes != 0) {
                *detail = found->bytes;
                return STRAND_CORRUPT;
            }
        }
        seq += rows;
        count -= rows;
    }
    return STRAND_OK;
}

/* Copy a run of payloads so that it ends at byte `end` of the target's data. */
static void copy_run(strand_target *target, uint64_t end, const unsigned char *from,
                     uint64_t bytes) {
    if (bytes != 0) /* an empty column has no data at all */
        memcpy(target->values + end - bytes, from, bytes);
}

/* Append payloads to a target's data; payloads adjacent in the heap are copied as one run. */
static int append_payloads(const strand_ring *ring, strand_target *target, const payload *payloads,
                           uint64_t count, unsigned char *offsets) {
    uint64_t run = 0; /* first byte and length of the run not yet copied */
    uint64_t run_bytes = 0;
    uint64_t end = target->data_bytes;
    for (uint64_t i = 0; i < count; i++) {
        const uint64_t bytes = payloads[i].bytes;
        if (bytes > target->values_bytes - end) {
            target->detail = bytes; /* the slot changed since it was measured */
            return STRAND_CORRUPT;
        }
        if (bytes != 0 && payloads[i].start != run + run_bytes) {
            copy_run(target, end, ring->base + run, run_bytes);
            run = payloads[i].start;
            run_bytes = 0;
        }
        run_bytes += bytes;
        end += bytes;
        const int32_t offset = (int32_t)(end / target->place.item_bytes);
        memcpy(offsets + i * sizeof offset, &offset, sizeof offset);
    }
    copy_run(target, end, ring->base + run, run_bytes);
    STRAND_INVARIANT(end <= target->values_bytes);
    target->data_bytes = end;
    return STRAND_OK;
}

int strand_payload_bytes(const strand_ring *ring, uint64_t seq, uint64_t rows,
                         const strand_place *place, uint64_t *bytes) {
    payload payloads[BLOCK_ROWS];
    *bytes = 0;
    while (rows != 0) {
        const uint64_t count = least(rows, BLOCK_ROWS);
        uint64_t detail = 0;
        const int result = read_payloads(ring, place, seq, count, payloads, &detail);
        if (result != STRAND_OK) {
            *bytes = detail;
            return result;
        }
        for (uint64_t i = 0; i < count; i++)
            *bytes += payloads[i].bytes;
        seq += count;
        rows -= count;
    }
    /* payloads of different records share no byte */
    return *bytes <= ring->heap_capacity ? STRAND_OK : STRAND_CORRUPT;
}

/* ---- text ----------------------------------------------------------------------------------- */

static bool is_ascii(const unsigned char *text, uint64_t bytes) {
    uint64_t seen = 0;
    uint64_t at = 0;
    for (; at + 8 <= bytes; at += 8) {
        uint64_t eight;
        memcpy(&eight, text + at, sizeof eight);
        seen |= eight;
    }
    for (; at < bytes; at++)
        seen |= text[at];
    return (seen & 0x8080808080808080U) == 0;
}

/* Bytes of the UTF-8 sequence at `text`, of which `bytes` are left; 0 when there is none (RFC 3629,
 * section 4: no overlong forms, no surrogates, nothing above U+10FFFF). */
static unsigned sequence(const unsigned char *text, uint64_t bytes) {
    const unsigned char lead = text[0];
    unsigned char low = 0x80, high = 0xBF; /* bounds of the second byte */
    if (lead < 0x80)
        return 1;
    unsigned length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    if (lead < 0xC2 || lead > 0xF4 || length > bytes)
        return 0;
    if (lead == 0xE0)
        low = 0xA0;
    else if (lead == 0xED)
        high = 0x9F;
    else if (lead == 0xF0)
        low = 0x90;
    else if (lead == 0xF4)
        high = 0x8F;
    if (text[1] < low || text[1] > high)
        return 0;
    for (unsigned i = 2; i < length; i++)
        if ((text[i] & 0xC0) != 0x80)
            return 0;
    return length;
}

/* Whether the values that end at each of `count` offsets are UTF-8, one by one. */
static bool are_text(const strand_target *target, uint64_t begin, const unsigned char *offsets,
                     uint64_t count) {
    if (target->data_bytes == begin || is_ascii(target->values + begin, target->data_bytes - begin))
        return true;
    uint64_t at = begin;
    for (uint64_t i = 0; i < count; i++) {
        int32_t end;
        memcpy(&end, offsets + i * sizeof end, sizeof end);
        while (at < (uint64_t)end) {
            const unsigned length = sequence(target->values + at, (uint64_t)end - at);
            if (length == 0)
                return false;
            at += length;
        }
    }
    return true;
}

/* ---- one block of one field ----------------------------------------------------------------- */

static int gather_payloads(const strand_ring *ring, uint64_t seq, uint64_t row, uint64_t count,
                           strand_target *target) {
    payload payloads[BLOCK_ROWS];
    unsigned char *offsets = target->offsets + (row + 1) * sizeof(int32_t);
    const uint64_t begin = target->data_bytes;
    int result = read_payloads(ring, &target->place, seq, count, payloads, &target->detail);
    if (result == STRAND_OK)
        result = append_payloads(ring, target, payloads, count, offsets);
    if (result == STRAND_OK && target->place.text && !are_text(target, begin, offsets, count))
        result = COLUMN_TEXT;
    return result;
}

static int check_handles(strand_target *target, const unsigned char *values, uint64_t count) {
    for (uint64_t i = 0; i < count; i++) {
        uint32_t handle;
        memcpy(&handle, values + i * sizeof handle, sizeof handle);
        if (handle >= target->place.handles) {
            target->detail = handle;
            return COLUMN_HANDLE;
        }
    }
    return STRAND_OK;
}

/* Zero the values of nulls, whose slots may contain any bytes. */
static void clear_nulls(const strand_place *place, unsigned char *values,
                        const unsigned char *present, uint64_t count) {
    for (uint64_t i = 0; i < count; i++)
        if (present[i] == 0)
            memset(values + i * place->width, 0, place->width);
}

static int gather_block(const strand_ring *ring, uint64_t seq, uint64_t row, uint64_t count,
                        strand_target *target) {
    const strand_place *place = &target->place;
    unsigned char present[BLOCK_ROWS];
    unsigned char truths[BLOCK_ROWS];
    const bool packs = target->form == COLUMN_BITS;
    unsigned char *values = packs ? truths : target->values + row * place->width;
    for (uint64_t done = 0; done < count;) {
        const unsigned char *slot = NULL;
        const uint64_t rows = straight(ring, seq + done, count - done, &slot);
        if (place->heap_align == 0)
            copy_values(place, values + done * place->width, slot, ring->stride, rows);
        if (place->null_bit >= 0)
            copy_presence(place->null_bit, present + done, slot, ring->stride, rows);
        done += rows;
    }
    if (place->null_bit >= 0) {
        for (uint64_t i = 0; i < count; i++)
            target->nulls += present[i] == 0;
        if (target->valid != NULL)
            pack_bits(target->valid + row / 8, present, count);
        if (place->heap_align == 0)
            clear_nulls(place, values, present, count);
    }
    if (packs)
        pack_bits(target->values + row / 8, truths, count);
    if (place->heap_align != 0)
        return gather_payloads(ring, seq, row, count, target);
    /* handles of nulls were set to 0 above, which is valid in every non-empty table */
    return place->handles != 0 ? check_handles(target, values, count) : STRAND_OK;
}

int strand_gather(const strand_ring *ring, uint64_t seq, uint64_t rows, strand_target *targets,
                  uint32_t count, uint32_t *field) {
    for (uint32_t at = 0; at < count; at++) {
        targets[at].nulls = 0;
        targets[at].data_bytes = 0;
        if (targets[at].offsets != NULL)
            memset(targets[at].offsets, 0, sizeof(int32_t));
    }
    for (uint64_t row = 0; row < rows; row += BLOCK_ROWS) {
        const uint64_t block = least(rows - row, BLOCK_ROWS);
        for (*field = 0; *field < count; (*field)++) {
            const int result = gather_block(ring, seq + row, row, block, &targets[*field]);
            if (result != STRAND_OK)
                return result;
        }
    }
    return STRAND_OK;
}
