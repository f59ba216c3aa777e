/* The producer's half of the core: room, claims, publication. */
#include <string.h>

#include "_words.h"

static const uint64_t V5_RECORDS_MAX = 0x7FFFFFFF;
static const uint64_t BLOCK_ALIGN = 64;
static const uint64_t SKIP_MARK_BYTES = 6;

/* Where a producer that takes over may overwrite: below the gate, but never what somebody attached
 * has not given back (the dead one may have seen him and kept to less than the gate it showed). */
static uint64_t safe_read(const strand_ring *ring, uint64_t commit, uint64_t gate) {
    uint64_t read = gate;
    if (strand_has_reader(ring)) {
        const uint64_t floor = strand_floor(ring);
        if (floor < read)
            read = floor;
    }
    if (read > commit)
        return commit;
    return commit - read > ring->capacity ? commit - ring->capacity : read;
}

void strand_producer_init(strand_producer *producer, const strand_ring *ring, uint64_t *heap_end) {
    /* relaxed: the role's lock ordered us after whoever wrote them */
    uint64_t commit = atomic_load_explicit(at64(ring, PRODUCER_COMMIT), memory_order_relaxed);
    uint64_t heap = atomic_load_explicit(at64(ring, PRODUCER_HEAP_COMMIT), memory_order_relaxed);
    uint64_t gate = atomic_load_explicit(at64(ring, GATE), memory_order_relaxed);
    *producer = (strand_producer){
        .ring = *ring,
        .heap_end = heap_end,
        .claimed = commit,
        .write = commit,
        .commit = commit,
        .heap_write = heap,
        .heap_sealed = heap,
        .heap_moved = commit,
        .gate = gate,
        .read = safe_read(ring, commit, gate),
    };
    /* What is still unread may lie anywhere in the heap, until all of it is read. */
    const uint64_t tail = heap > ring->heap_capacity ? heap - ring->heap_capacity : 0;
    for (uint64_t slot = 0; slot < ring->capacity; slot++)
        heap_end[slot] = tail;
    heap_end[(commit - 1) & (ring->capacity - 1)] = heap;
    /* a dead one's: nobody waits any more */
    atomic_store_explicit(at64(ring, PRODUCER_THRESHOLD), 0, memory_order_relaxed);
}

/* Move the cached floor forward. False: it says what cannot be.
 *
 * A consumer that joins takes the floor for its start, makes itself visible, then looks at the
 * gate. We show the gate, then look for joiners. With a full fence in both gaps, either we see the
 * joiner and keep its records, or it sees the gate and starts there. The gate only rises: whoever
 * missed it once is seen by every later look. */
static bool refresh_read(strand_producer *producer) {
    const strand_ring *ring = &producer->ring;
    uint64_t floor = strand_floor(ring);
    if (producer->discards && !strand_has_reader(ring))
        floor = producer->commit;
    if (floor > producer->commit) /* who joined, or died joining, while we began anew shows an */
        return strand_generation_of(ring) != 0; /* old count; otherwise it cannot be */
    if (floor <= producer->read)
        return true; /* no progress, or a joiner on its way to the gate */
    if (floor > producer->gate) {
        producer->gate = floor;
        atomic_store_explicit(at64(ring, GATE), floor, memory_order_release);
        atomic_thread_fence(memory_order_seq_cst); /* pairs with the one in strand_join */
        if (strand_has_reader(ring)) {
            const uint64_t again = strand_floor(ring);
            if (again < floor)
                floor = again;
        }
    }
    if (floor > producer->read)
        producer->read = floor;
    return true;
}

/* Show a plain v5 reader what we published, in the same order. */
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
    /* one that died may have published and not mirrored */
    mirror(&producer->ring, producer->heap_sealed, producer->commit);
    strand_set_status(&producer->ring, STRAND_STREAMING);
}

static int stall(strand_producer *producer, uint64_t wanted, uint64_t *threshold) {
    producer->stalls++;
    show(&producer->ring, PRODUCER_STALLS, producer->stalls);
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
    return STRAND_OK;
}

int strand_claim_slots(strand_producer *producer, uint64_t count, uint64_t *seq,
                       uint64_t *threshold) {
    const strand_ring *ring = &producer->ring;
    const int result = strand_claim_span(producer, count, seq, threshold);
    if (result != STRAND_OK)
        return result;
    const uint64_t first = *seq & (ring->capacity - 1);
    const uint64_t before_end = ring->capacity - first;
    const uint64_t straight = count < before_end ? count : before_end;
    unsigned char *slots = ring->base + STRAND_HEADER_BYTES;
    memset(slots + first * ring->stride, 0, straight * ring->stride);
    memset(slots, 0, (count - straight) * ring->stride);
    return STRAND_OK;
}

/* Where the heap stood after record `count - 1`: nothing below is needed once `count` are read. */
static uint64_t heap_tail(const strand_producer *producer, uint64_t count) {
    return producer->heap_end[(count - 1) & (producer->ring.capacity - 1)];
}

/* The fewest acknowledged records after which the heap may grow to `end`. heap_end never falls, so
 * halving finds it. The caller knows that reading everything sealed would be enough. */
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
    return low;
}

/* Whether there is no slot for the record of a payload: none claimed, and every one in use. Then
 * the newest record's heap_end stands where that of the last one read stood. */
static bool lacks_slot(const strand_producer *producer) {
    return producer->claimed == producer->write &&
           producer->claimed - producer->read == producer->ring.capacity;
}

/* Where a payload would start: aligned, and never across the physical end. */
static uint64_t place(const strand_producer *producer, uint64_t bytes, uint64_t align) {
    uint64_t capacity = producer->ring.heap_capacity;
    uint64_t start = (producer->heap_write + align - 1) & ~(align - 1);
    uint64_t physical = start & (capacity - 1);
    if (physical + bytes > capacity)
        start += capacity - physical;
    return start;
}

/* Tell whoever walks the heap in order that the rest before the physical end is unused. */
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
    /* What the payloads of one record may need, wherever they land: half of the heap, so that a
     * skip at its end always leaves room for them. */
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
    /* Which bytes belong to which of them is not known, so all are kept until the last is read.
     * After a lap without payloads every entry holds the same, and is left alone. */
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
}

void strand_abandon(strand_producer *producer) {
    producer->claimed = producer->write;
    producer->heap_write = producer->heap_sealed;
    producer->record_bytes = 0;
    /* bytes that were shown ahead of their records go with the newest one there is */
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
    /* release, heap before records: who sees the count sees the slots, the payloads and the heap */
    atomic_store_explicit(at64(ring, PRODUCER_HEAP_COMMIT), heap, memory_order_release);
    atomic_store_explicit(at64(ring, PRODUCER_COMMIT), after, memory_order_release);
    mirror(ring, heap, after);
    /* Store the count, then load the thresholds; the sleeper stores its threshold, then loads the
     * count. With a full fence in both gaps at least one of the two sees the other. */
    atomic_thread_fence(memory_order_seq_cst);
    for (unsigned i = 0; i < STRAND_CONSUMERS; i++) {
        uint64_t wanted =
            atomic_load_explicit(at64(ring, entry(i) + CONSUMER_THRESHOLD), memory_order_relaxed);
        if (before < wanted && wanted <= after) {
            strand_ring_bell(consumer_bell(ring, i));
            show(ring, PRODUCER_RINGS, ++producer->rings);
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
    /* release: who joins meanwhile and starts at these zeros sees no count of the old stream */
    atomic_store_explicit(at64(ring, GATE), 0, memory_order_release);
    for (unsigned i = 0; i < STRAND_CONSUMERS; i++) {
        atomic_store_explicit(at64(ring, entry(i) + CONSUMER_READ), 0, memory_order_release);
        atomic_store_explicit(at64(ring, entry(i) + CONSUMER_THRESHOLD), 0, memory_order_relaxed);
        uint32_t left = STRAND_LEFT; /* exchanged: its process may enter again this moment */
        atomic_compare_exchange_strong(at32(ring, entry(i) + CONSUMER_STATE), &left, STRAND_VACANT);
    }
    if (ring->version == 5)
        for (uint64_t word = V5_WRITE; word <= V5_ABORT; word += 4)
            atomic_store_explicit(at32(ring, word), 0, memory_order_relaxed);
    for (unsigned i = 0; ring->version == 5 && i < STRAND_CONSUMERS; i++) {
        word32 *plain = at32(ring, V5_CONSUMERS + 4 * i);
        uint32_t read = atomic_load_explicit(plain, memory_order_acquire);
        if (read != V5_VACANT) /* exchanged: it may become vacant this moment */
            atomic_compare_exchange_strong(plain, &read, 0);
    }
    atomic_store_explicit(at32(ring, ABORT), 0, memory_order_relaxed);
    atomic_store_explicit(at32(ring, STATUS), STRAND_INITIALIZING, memory_order_relaxed);
    /* release, last: who sees the new generation sees the counters it begins with */
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

/* Whether `threshold` records are given back, or whoever kept them is gone. */
static bool has_room(strand_producer *producer, uint64_t threshold) {
    return refresh_read(producer) && producer->read >= threshold;
}

/* Consumers may wait for more records than there is room for now. Who has something to give back
 * must not sleep on while we do. With a full fence between threshold and look on both sides, either
 * we see theirs or they see ours. */
static void wake_the_patient(const strand_producer *producer) {
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
    atomic_thread_fence(memory_order_seq_cst); /* pairs with those in give_back and strand_arm */
    wake_the_patient(producer);
    return atomic_load_explicit(at32(ring, PRODUCER_BELL), memory_order_acquire);
}

void strand_producer_disarm(const strand_producer *producer) {
    atomic_store_explicit(at64(&producer->ring, PRODUCER_THRESHOLD), 0, memory_order_relaxed);
}

bool strand_producer_wait(strand_producer *producer, uint64_t threshold, uint64_t spin_nanoseconds,
                          uint64_t nap_nanoseconds) {
    const strand_ring *ring = &producer->ring;
    for (spinner spin = {0}; strand_spins_on(&spin, spin_nanoseconds);)
        if (strand_floor(ring) >= threshold)
            return has_room(producer, threshold);
    const uint32_t seen = strand_producer_arm(producer, threshold);
    if (has_room(producer, threshold))
        return true;
    if (strand_aborted(ring) || (producer->raises && strand_is_abandoned(ring)))
        return false; /* looked at after the bell: whoever leaves now changes it */
    strand_sleep(at32(ring, PRODUCER_BELL), seen, nap_nanoseconds);
    return has_room(producer, threshold);
}
