/* The producer's half of the core: room, claims, publication. */
#include <string.h>

#include "_words.h"

static const uint64_t V5_RECORDS_MAX = 0x7FFFFFFF; /* v5 counters are signed 32-bit words */
static const uint64_t BLOCK_ALIGN = 64;            /* payloads of a block ring: a cache line */
static const uint64_t SKIP_MARK_BYTES = 6;         /* u16 mark, u32 distance */

/* Check the invariants of strand_producer, which every function here keeps. */
static void check_producer(const strand_producer *producer) {
    STRAND_INVARIANT(producer->read <= producer->commit);
    STRAND_INVARIANT(producer->commit <= producer->write);
    STRAND_INVARIANT(producer->write <= producer->claimed);
    STRAND_INVARIANT(producer->claimed - producer->read <= producer->ring.capacity);
    STRAND_INVARIANT(producer->heap_sealed <= producer->heap_write);
    (void)producer;
}

/* Return the position below which a resuming producer may overwrite: the join position, but not
 * beyond an attached consumer. The dead producer may have published a join position and then seen a
 * joining consumer below it, whose records it kept. */
static uint64_t safe_read(const strand_ring *ring, uint64_t commit, uint64_t join_position) {
    uint64_t read = join_position;
    if (strand_has_reader(ring)) {
        const uint64_t low_water = strand_low_water(ring);
        if (low_water < read)
            read = low_water;
    }
    if (read > commit)
        return commit;
    return commit - read > ring->capacity ? commit - ring->capacity : read;
}

void strand_producer_init(strand_producer *producer, const strand_ring *ring, uint64_t *heap_end) {
    /* relaxed: the producer lock orders these loads after the stores of the last producer */
    uint64_t commit = atomic_load_explicit(at64(ring, PRODUCER_COMMIT), memory_order_relaxed);
    uint64_t heap = atomic_load_explicit(at64(ring, PRODUCER_HEAP_COMMIT), memory_order_relaxed);
    uint64_t join_position = atomic_load_explicit(at64(ring, JOIN_POSITION), memory_order_relaxed);
    *producer = (strand_producer){
        .ring = *ring,
        .heap_end = heap_end,
        .claimed = commit,
        .write = commit,
        .commit = commit,
        .heap_write = heap,
        .heap_sealed = heap,
        .heap_moved = commit,
        .join_position = join_position,
        .read = safe_read(ring, commit, join_position),
    };
    /* The offsets of the unread payloads are not known here, so the whole heap counts as used until
     * all of them are acknowledged. */
    const uint64_t tail = heap > ring->heap_capacity ? heap - ring->heap_capacity : 0;
    for (uint64_t slot = 0; slot < ring->capacity; slot++)
        heap_end[slot] = tail;
    heap_end[(commit - 1) & (ring->capacity - 1)] = heap;
    /* a dead producer may have left one; no thread waits for it now */
    atomic_store_explicit(at64(ring, PRODUCER_THRESHOLD), 0, memory_order_relaxed);
}

/* Advance the cached low-water mark. False: the shared positions are impossible.
 *
 * A joining consumer must not start at a record that is being overwritten (design/0014):
 *
 *     producer: store the join position; fence; reread the positions; overwrite below the lesser
 *     consumer: store its position, ATTACHED; fence; load the join position; start at the greater
 *
 * With both fences sequentially consistent, either the producer sees the consumer and keeps its
 * records, or the consumer sees the join position and starts there. The join position only rises,
 * so a consumer that missed one value is seen by every later read of the positions. */
static bool refresh_read(strand_producer *producer) {
    const strand_ring *ring = &producer->ring;
    uint64_t low_water = strand_low_water(ring);
    if (producer->discards && !strand_has_reader(ring))
        low_water = producer->commit;
    /* After a reset, an entry may show a position of the old stream: its consumer joined, or died
     * joining, during the reset. In generation 0 such a position is corrupt. */
    if (low_water > producer->commit)
        return strand_generation_of(ring) != 0;
    if (low_water <= producer->read)
        return true; /* no progress, or a joining consumer that has yet to see the join position */
    if (low_water > producer->join_position) {
        producer->join_position = low_water;
        atomic_store_explicit(at64(ring, JOIN_POSITION), low_water, memory_order_release);
        atomic_thread_fence(memory_order_seq_cst); /* pairs with the one in enter */
        if (strand_has_reader(ring)) {
            const uint64_t again = strand_low_water(ring);
            if (again < low_water)
                low_water = again;
        }
    }
    if (low_water > producer->read)
        producer->read = low_water;
    check_producer(producer);
    return true;
}

/* Store the counters in the words of plain v5 readers, heap before records as in strand_publish. */
static void mirror(const strand_ring *ring, uint64_t heap, uint64_t commit) {
    if (ring->version != 5)
        return;
    const uint32_t records = (uint32_t)(commit & V5_RECORDS_MAX);
    atomic_store_explicit(at32(ring, V5_HEAP_WRITE), (uint32_t)heap, memory_order_release);
    atomic_store_explicit(at32(ring, V5_HEAP_COMMIT), (uint32_t)heap, memory_order_release);
    atomic_store_explicit(at32(ring, V5_WRITE), records, memory_order_release);
    atomic_store_explicit(at32(ring, V5_COMMIT), records, memory_order_release);
}

void strand_begin(strand_producer *producer) {
    producer->streaming = true;
    /* a producer that died may have published without mirroring */
    mirror(&producer->ring, producer->heap_sealed, producer->commit);
    strand_set_status(&producer->ring, STRAND_STREAMING);
}

static int stall(strand_producer *producer, uint64_t wanted, uint64_t *threshold) {
    producer->stalls++;
    export_count(&producer->ring, PRODUCER_STALLS, producer->stalls);
    *threshold = wanted;
    return STRAND_WAIT;
}

int strand_room(strand_producer *producer, uint64_t wanted, uint64_t *room) {
    const strand_ring *ring = &producer->ring;
    if (strand_aborted(ring))
        return STRAND_ABORTED;
    *room = ring->capacity - (producer->claimed - producer->read);
    if (*room < wanted) {
        if (!refresh_read(producer))
            return STRAND_CORRUPT;
        *room = ring->capacity - (producer->claimed - producer->read);
    }
    /* A plain v5 reader keeps the counters in signed words and could not follow beyond them. */
    if (ring->version == 5) {
        if (producer->claimed >= V5_RECORDS_MAX)
            return STRAND_EXHAUSTED;
        if (*room > V5_RECORDS_MAX - producer->claimed)
            *room = V5_RECORDS_MAX - producer->claimed;
    }
    return STRAND_OK;
}

int strand_claim_span(strand_producer *producer, uint64_t count, uint64_t *seq,
                      uint64_t *threshold) {
    const strand_ring *ring = &producer->ring;
    uint64_t room = 0;
    int result = strand_room(producer, count, &room);
    if (result != STRAND_OK)
        return result;
    if (room < count && ring->version == 5 && producer->claimed + count > V5_RECORDS_MAX)
        return STRAND_EXHAUSTED;
    if (room < count)
        return stall(producer, producer->claimed + count - ring->capacity, threshold);
    if (!producer->streaming)
        strand_begin(producer);
    *seq = producer->claimed;
    producer->claimed += count;
    check_producer(producer);
    return STRAND_OK;
}

int strand_claim_slots(strand_producer *producer, uint64_t count, uint64_t *seq,
                       uint64_t *threshold) {
    const strand_ring *ring = &producer->ring;
    const int result = strand_claim_span(producer, count, seq, threshold);
    if (result != STRAND_OK)
        return result;
    /* Zero whole slots: a record does not write its gaps, nor the fields that are null, and a slot
     * must not show the bytes of an older record there. */
    const uint64_t first = *seq & (ring->capacity - 1);
    const uint64_t before_end = ring->capacity - first;
    const uint64_t straight = count < before_end ? count : before_end;
    unsigned char *slots = ring->base + STRAND_HEADER_BYTES;
    memset(slots + first * ring->stride, 0, straight * ring->stride);
    memset(slots, 0, (count - straight) * ring->stride);
    return STRAND_OK;
}

/* The heap counter after record `count - 1`: once `count` records are acknowledged, no byte below
 * it is needed. */
static uint64_t heap_tail(const strand_producer *producer, uint64_t count) {
    return producer->heap_end[(count - 1) & (producer->ring.capacity - 1)];
}

/* The fewest acknowledged records after which the heap may grow to `end`, by bisection: heap_end is
 * non-decreasing. The caller has checked that acknowledging all sealed records is enough. */
static uint64_t reads_for_heap(const strand_producer *producer, uint64_t end) {
    uint64_t low = producer->read + 1;
    uint64_t high = producer->write;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (end - heap_tail(producer, middle) <= producer->ring.heap_capacity)
            high = middle;
        else
            low = middle + 1;
    }
    STRAND_INVARIANT(end - heap_tail(producer, low) <= producer->ring.heap_capacity);
    return low;
}

/* Whether a payload has no slot for its record: none is claimed, and all are in use.
 * heap_tail(read) is not usable then, because the newest record's heap_end has overwritten that
 * entry. */
static bool lacks_slot(const strand_producer *producer) {
    return producer->claimed == producer->write &&
           producer->claimed - producer->read == producer->ring.capacity;
}

/* The heap offset at which a payload would start: aligned, and not across the heap's end. */
static uint64_t place(const strand_producer *producer, uint64_t bytes, uint64_t align) {
    uint64_t capacity = producer->ring.heap_capacity;
    uint64_t start = (producer->heap_write + align - 1) & ~(align - 1);
    uint64_t physical = start & (capacity - 1);
    if (physical + bytes > capacity)
        start += capacity - physical;
    return start;
}

/* Mark the rest of the heap before its end as unused, for readers that walk the heap in order. */
static void mark_skip(const strand_producer *producer) {
    const strand_ring *ring = &producer->ring;
    uint64_t physical = producer->heap_write & (ring->heap_capacity - 1);
    uint64_t left = ring->heap_capacity - physical;
    if (physical == 0 || left < SKIP_MARK_BYTES)
        return;
    const uint16_t mark = 0xFFFF;
    const uint32_t distance = (uint32_t)left;
    unsigned char *where = ring->base + ring->heap_start + physical;
    memcpy(where, &mark, sizeof mark);
    memcpy(where + sizeof mark, &distance, sizeof distance);
}

int strand_claim_heap(strand_producer *producer, uint64_t bytes, uint64_t align, uint64_t *offset,
                      uint64_t *threshold) {
    const uint64_t capacity = producer->ring.heap_capacity;
    if (bytes == 0) {
        *offset = producer->heap_write;
        return STRAND_OK;
    }
    /* The payloads of one record are limited to half of the heap, worst-case padding included, so
     * that they fit wherever they start, even after a skip at the heap's end. */
    const uint64_t needed = producer->record_bytes + bytes + (bytes < capacity / 2 ? align - 1 : 0);
    if (bytes > capacity / 2 || (producer->record_bytes != 0 && needed > capacity / 2))
        return STRAND_TOO_LARGE;
    uint64_t start = place(producer, bytes, align);
    uint64_t end = start + bytes;
    if (end - producer->heap_sealed > capacity)
        return STRAND_TOO_LARGE;
    if (lacks_slot(producer) || end - heap_tail(producer, producer->read) > capacity) {
        if (!refresh_read(producer))
            return STRAND_CORRUPT;
        if (strand_aborted(&producer->ring))
            return STRAND_ABORTED;
        if (lacks_slot(producer))
            return stall(producer, producer->claimed + 1 - producer->ring.capacity, threshold);
        if (end - heap_tail(producer, producer->read) > capacity)
            return stall(producer, reads_for_heap(producer, end), threshold);
    }
    STRAND_INVARIANT(start >= producer->heap_write && (start & (capacity - 1)) + bytes <= capacity);
    if (start / capacity != producer->heap_write / capacity)
        mark_skip(producer);
    producer->heap_write = end;
    producer->record_bytes = needed;
    *offset = start;
    return STRAND_OK;
}

void strand_shrink_heap(strand_producer *producer, uint64_t offset, uint64_t bytes) {
    producer->heap_write = offset + bytes;
}

void strand_seal(strand_producer *producer, uint64_t count) {
    const uint64_t mask = producer->ring.capacity - 1;
    const uint64_t before = heap_tail(producer, producer->write);
    uint64_t *heap_end = producer->heap_end;
    if (count == 0)
        return;
    STRAND_INVARIANT(count <= producer->claimed - producer->write);
    /* Which heap bytes belong to which of these records is not known, so all of the bytes are kept
     * until the last record is acknowledged. After a whole lap without payloads every entry has the
     * same value already, and the loop is skipped. */
    const bool steady = before == producer->heap_write &&
                        producer->write - producer->heap_moved >= producer->ring.capacity;
    for (uint64_t left = steady ? 0 : count; left != 0;) {
        const uint64_t first = (producer->write + count - left) & mask;
        const uint64_t rows = left < mask + 1 - first ? left : mask + 1 - first;
        for (uint64_t i = 0; i < rows; i++)
            heap_end[first + i] = before;
        left -= rows;
    }
    producer->write += count;
    heap_end[(producer->write - 1) & mask] = producer->heap_write;
    if (before != producer->heap_write)
        producer->heap_moved = producer->write;
    producer->heap_sealed = producer->heap_write;
    producer->record_bytes = 0;
    check_producer(producer);
}

void strand_abandon(strand_producer *producer) {
    producer->claimed = producer->write;
    producer->heap_write = producer->heap_sealed;
    producer->record_bytes = 0;
    /* heap bytes published ahead of their records are released with the newest sealed record */
    producer->heap_end[(producer->write - 1) & (producer->ring.capacity - 1)] =
        producer->heap_sealed;
}

void strand_commit_heap(strand_producer *producer) {
    const strand_ring *ring = &producer->ring;
    const uint64_t heap = producer->heap_sealed = producer->heap_write;
    atomic_store_explicit(at64(ring, PRODUCER_HEAP_WRITE), heap, memory_order_relaxed);
    atomic_store_explicit(at64(ring, PRODUCER_HEAP_COMMIT), heap, memory_order_release);
    mirror(ring, heap, producer->commit);
}

void strand_publish(strand_producer *producer) {
    const strand_ring *ring = &producer->ring;
    const uint64_t before = producer->commit;
    const uint64_t after = producer->write;
    const uint64_t heap = producer->heap_sealed;
    if (before == after)
        return;
    producer->commit = after;
    atomic_store_explicit(at64(ring, PRODUCER_HEAP_WRITE), heap, memory_order_relaxed);
    atomic_store_explicit(at64(ring, PRODUCER_WRITE), after, memory_order_relaxed);
    /* release, heap before records: a consumer that loads the commit counter (acquire) also sees
     * the slots, the payloads and the heap counter of the records below it */
    atomic_store_explicit(at64(ring, PRODUCER_HEAP_COMMIT), heap, memory_order_release);
    atomic_store_explicit(at64(ring, PRODUCER_COMMIT), after, memory_order_release);
    mirror(ring, heap, after);
    /* pairs with the one in strand_arm: store the count, then load the thresholds; the sleeper
     * stores its threshold, then loads the count (see _words.h) */
    atomic_thread_fence(memory_order_seq_cst);
    for (unsigned i = 0; i < STRAND_CONSUMERS; i++) {
        uint64_t wanted =
            atomic_load_explicit(at64(ring, entry(i) + CONSUMER_THRESHOLD), memory_order_relaxed);
        if (before < wanted && wanted <= after) {
            strand_ring_bell(consumer_bell(ring, i));
            export_count(ring, PRODUCER_RINGS, ++producer->rings);
        }
    }
}

int strand_write_block(strand_producer *producer, const void *payload, uint64_t bytes,
                       uint64_t *threshold) {
    uint64_t seq = 0;
    uint64_t offset = 0;
    if (bytes > producer->ring.heap_capacity / 2)
        return STRAND_TOO_LARGE;
    int result = strand_claim_slots(producer, 1, &seq, threshold);
    if (result != STRAND_OK)
        return result;
    result = strand_claim_heap(producer, bytes, BLOCK_ALIGN, &offset, threshold);
    if (result != STRAND_OK) {
        producer->claimed = producer->write;
        return result;
    }
    unsigned char *slot = producer->ring.base + strand_slot_at(&producer->ring, seq);
    const strand_ring *ring = &producer->ring;
    const uint32_t length = (uint32_t)bytes;
    if (bytes != 0)
        memcpy(ring->base + ring->heap_start + (offset & (ring->heap_capacity - 1)), payload,
               bytes);
    memcpy(slot, &offset, sizeof offset);
    memcpy(slot + sizeof offset, &length, sizeof length);
    strand_seal(producer, 1);
    strand_publish(producer);
    return STRAND_OK;
}

void strand_reset(strand_producer *producer) {
    const strand_ring *ring = &producer->ring;
    static const uint64_t counters[] = {PRODUCER_WRITE, PRODUCER_COMMIT, PRODUCER_HEAP_WRITE,
                                        PRODUCER_HEAP_COMMIT, PRODUCER_THRESHOLD};
    for (size_t i = 0; i < sizeof counters / sizeof *counters; i++)
        atomic_store_explicit(at64(ring, counters[i]), 0, memory_order_relaxed);
    /* release: a consumer that joins now and reads this zero also sees the zeroed counters above */
    atomic_store_explicit(at64(ring, JOIN_POSITION), 0, memory_order_release);
    for (unsigned i = 0; i < STRAND_CONSUMERS; i++) {
        atomic_store_explicit(at64(ring, entry(i) + CONSUMER_READ), 0, memory_order_release);
        atomic_store_explicit(at64(ring, entry(i) + CONSUMER_THRESHOLD), 0, memory_order_relaxed);
        uint32_t left = STRAND_LEFT; /* exchange: a consumer may be attaching to the entry now */
        atomic_compare_exchange_strong(at32(ring, entry(i) + CONSUMER_STATE), &left, STRAND_VACANT);
    }
    if (ring->version == 5)
        for (uint64_t word = V5_WRITE; word <= V5_ABORT; word += 4)
            atomic_store_explicit(at32(ring, word), 0, memory_order_relaxed);
    for (unsigned i = 0; ring->version == 5 && i < STRAND_CONSUMERS; i++) {
        word32 *plain = at32(ring, V5_CONSUMERS + 4 * i);
        uint32_t read = atomic_load_explicit(plain, memory_order_acquire);
        if (read != V5_VACANT) /* exchange: the reader may be vacating the word now */
            atomic_compare_exchange_strong(plain, &read, 0);
    }
    atomic_store_explicit(at32(ring, ABORT), 0, memory_order_relaxed);
    atomic_store_explicit(at32(ring, STATUS), STRAND_INITIALIZING, memory_order_relaxed);
    /* release, last: a consumer that sees the new generation also sees the zeroed counters */
    atomic_store_explicit(at32(ring, GENERATION), strand_generation_of(ring) + 1,
                          memory_order_release);
    atomic_thread_fence(memory_order_seq_cst); /* pairs with the one in enter, see strand_join */
    for (unsigned i = 0; i < STRAND_CONSUMERS; i++)
        if (strand_consumer_state_of(ring, i) == STRAND_ATTACHED)
            atomic_store_explicit(at64(ring, entry(i) + CONSUMER_READ), 0, memory_order_relaxed);
    strand_ring_every_bell(ring);
    const strand_producer before = *producer;
    strand_producer_init(producer, ring, producer->heap_end);
    producer->discards = before.discards;
    producer->raises = before.raises;
}

/* Whether `threshold` records are acknowledged, or their consumers have left. */
static bool has_room(strand_producer *producer, uint64_t threshold) {
    return refresh_read(producer) && producer->read >= threshold;
}

/* Wake consumers that wait for more records than the ring has room for now and have records to
 * acknowledge: both sides would sleep for ever. Each side stores its threshold, fences, and loads
 * the other's threshold, so at least one of them sees the other. */
static void wake_waiting_consumers(const strand_producer *producer) {
    const strand_ring *ring = &producer->ring;
    for (unsigned i = 0; i < STRAND_CONSUMERS; i++) {
        const uint64_t wanted =
            atomic_load_explicit(at64(ring, entry(i) + CONSUMER_THRESHOLD), memory_order_relaxed);
        if (wanted > producer->commit &&
            atomic_load_explicit(at64(ring, entry(i) + CONSUMER_READ), memory_order_relaxed) <
                producer->commit)
            strand_ring_bell(consumer_bell(ring, i));
    }
}

uint32_t strand_producer_arm(const strand_producer *producer, uint64_t threshold) {
    const strand_ring *ring = &producer->ring;
    atomic_store_explicit(at64(ring, PRODUCER_THRESHOLD), threshold, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst); /* pairs with those in advance_read, strand_arm */
    wake_waiting_consumers(producer);
    return atomic_load_explicit(at32(ring, PRODUCER_BELL), memory_order_acquire);
}

void strand_producer_disarm(const strand_producer *producer) {
    atomic_store_explicit(at64(&producer->ring, PRODUCER_THRESHOLD), 0, memory_order_relaxed);
}

bool strand_producer_wait(strand_producer *producer, uint64_t threshold, uint64_t spin_nanoseconds,
                          uint64_t nap_nanoseconds) {
    const strand_ring *ring = &producer->ring;
    for (spinner spin = {0}; strand_spins_on(&spin, spin_nanoseconds);)
        if (strand_low_water(ring) >= threshold)
            return has_room(producer, threshold);
    const uint32_t seen = strand_producer_arm(producer, threshold);
    if (has_room(producer, threshold))
        return true;
    if (strand_aborted(ring) || (producer->raises && strand_is_abandoned(ring)))
        return false; /* checked after the bell was read: a consumer that leaves later changes it */
    strand_sleep(at32(ring, PRODUCER_BELL), seen, nap_nanoseconds);
    return has_room(producer, threshold);
}
