/* The consumer's half of the core: joining, waiting, acknowledging. */
#include <string.h>

#include "_words.h"

void strand_consumer_init(strand_consumer *consumer, const strand_ring *ring) {
    *consumer = (strand_consumer){
        .ring = *ring, .generation = strand_generation_of(ring), .low_water = UINT64_MAX};
}

/* Recompute `index` and `low_water` from the entries held. */
static void update_low_water(strand_consumer *consumer) {
    consumer->low_water = UINT64_MAX;
    for (unsigned i = STRAND_CONSUMERS; i-- > 0;) {
        if (!(consumer->held >> i & 1))
            continue;
        consumer->index = i;
        if (consumer->read[i] < consumer->low_water)
            consumer->low_water = consumer->read[i];
    }
}

/* Store the position of entry `index`, and wake the producer when that crosses its threshold. */
static void advance_read(strand_consumer *consumer, unsigned index, uint64_t upto) {
    const strand_ring *ring = &consumer->ring;
    const uint64_t old = consumer->read[index];
    STRAND_INVARIANT(consumer->held >> index & 1);
    STRAND_INVARIANT(upto >= old); /* a position never falls within a stream */
    consumer->read[index] = upto;
    /* release, pairs with the acquire load in read_of: this consumer has finished reading these
     * records before the producer sees that it may overwrite them */
    atomic_store_explicit(at64(ring, entry(index) + CONSUMER_READ), upto, memory_order_release);
    if (ring->version == 5)
        atomic_store_explicit(at32(ring, V5_READ), (uint32_t)strand_low_water(ring),
                              memory_order_release);
    atomic_thread_fence(memory_order_seq_cst); /* pairs with the one in strand_producer_arm */
    const uint64_t wanted =
        atomic_load_explicit(at64(ring, PRODUCER_THRESHOLD), memory_order_relaxed);
    if (old < wanted && wanted <= upto) {
        strand_ring_bell(at32(ring, PRODUCER_BELL));
        export_count(ring, entry(index) + CONSUMER_RINGS, ++consumer->rings);
    }
    update_low_water(consumer);
}

/* Attach entry `index` at record `first`, or at the join position when that is higher.
 *
 * The order matters: position, state, fence, join position. See refresh_read. */
static void enter(strand_consumer *consumer, unsigned index, uint64_t first) {
    const strand_ring *ring = &consumer->ring;
    consumer->read[index] = first;
    consumer->held |= 1U << index;
    atomic_store_explicit(at64(ring, entry(index) + CONSUMER_THRESHOLD), 0, memory_order_relaxed);
    atomic_store_explicit(at64(ring, entry(index) + CONSUMER_READ), first, memory_order_release);
    /* release: a producer that sees ATTACHED also sees the position stored above */
    atomic_store_explicit(at32(ring, entry(index) + CONSUMER_STATE), STRAND_ATTACHED,
                          memory_order_release);
    atomic_thread_fence(memory_order_seq_cst); /* pairs with the one in refresh_read */
    const uint64_t join_position =
        atomic_load_explicit(at64(ring, JOIN_POSITION), memory_order_acquire);
    advance_read(consumer, index, join_position > first ? join_position : first);
}

void strand_join(strand_consumer *consumer, unsigned index, enum strand_start start) {
    const strand_ring *ring = &consumer->ring;
    consumer->rewound |= strand_follow_reset(consumer) && consumer->held != 0;
    uint64_t first = start == STRAND_NEXT ? UINT64_MAX : strand_low_water(ring);
    const uint64_t committed = strand_committed(ring);
    if (first > committed) /* a consumer that died while joining during a reset may have left an */
        first = committed; /* entry with a position of the old stream */
    enter(consumer, index, first);
    /* The producer may have reset the ring meanwhile without seeing this entry, whose position then
     * belongs to the old stream. strand_reset checks the entries again after it has changed the
     * generation, and both sides have a full fence in between, so at least one sees the other. */
    while (strand_follow_reset(consumer)) {
        consumer->rewound |= (consumer->held & ~(1U << index)) != 0;
        enter(consumer, index, start == STRAND_NEXT ? strand_committed(ring) : 0);
    }
    /* Attaching may raise the low-water mark (with no consumer attached it was the position of the
     * last one that left), possibly past the threshold of a sleeping producer. */
    strand_ring_bell(at32(ring, PRODUCER_BELL));
}

void strand_leave(strand_consumer *consumer, unsigned index) {
    consumer->held &= ~(1U << index);
    update_low_water(consumer);
    strand_mark_left(&consumer->ring, index);
}

bool strand_is_possible(const strand_consumer *consumer, uint64_t committed) {
    return committed <= consumer->low_water ||
           committed - consumer->low_water <= consumer->ring.capacity;
}

bool strand_readable(strand_consumer *consumer, uint64_t seq) {
    if (seq < consumer->low_water)
        return false;
    if (seq >= consumer->committed) {
        const uint64_t committed = strand_committed(&consumer->ring);
        if (strand_generation_of(&consumer->ring) != consumer->generation ||
            !strand_is_possible(consumer, committed))
            return false;
        consumer->committed = committed;
    }
    return seq < consumer->committed;
}

bool strand_follow_reset(strand_consumer *consumer) {
    const uint32_t generation = strand_generation_of(&consumer->ring);
    if (generation == consumer->generation)
        return false;
    consumer->generation = generation;
    consumer->committed = 0;
    memset(consumer->read, 0, sizeof consumer->read);
    update_low_water(consumer);
    return true;
}

int strand_locate(const strand_ring *ring, uint64_t start, uint64_t bytes, uint64_t *offset) {
    const uint64_t physical = start & (ring->heap_capacity - 1);
    if (bytes > ring->heap_capacity || physical + bytes > ring->heap_capacity)
        return STRAND_CORRUPT;
    *offset = ring->heap_start + physical;
    return STRAND_OK;
}

int strand_read_block(strand_consumer *consumer, uint64_t seq, uint64_t *offset, uint64_t *bytes) {
    const strand_ring *ring = &consumer->ring;
    if (!strand_readable(consumer, seq))
        return STRAND_RANGE;
    const unsigned char *slot = ring->base + strand_slot_at(ring, seq);
    uint64_t start;
    uint32_t length;
    memcpy(&start, slot, sizeof start);
    memcpy(&length, slot + sizeof start, sizeof length);
    /* Loaded after the commit counter, and stored before it (strand_publish), so it includes this
     * record's payload. A pointer that claims more is corrupt. */
    const uint64_t heap =
        atomic_load_explicit(at64(ring, PRODUCER_HEAP_COMMIT), memory_order_acquire);
    if (start > heap || heap - start > ring->heap_capacity || length > heap - start)
        return STRAND_CORRUPT;
    *bytes = length;
    return strand_locate(ring, start, length, offset);
}

int strand_acknowledge(strand_consumer *consumer, unsigned index, uint64_t upto) {
    const uint64_t old = consumer->read[index];
    if (upto < old || upto > strand_committed(&consumer->ring) ||
        strand_generation_of(&consumer->ring) != consumer->generation)
        return STRAND_RANGE;
    if (upto != old)
        advance_read(consumer, index, upto);
    return STRAND_OK;
}

void strand_arm(const strand_consumer *consumer, uint64_t threshold) {
    const uint64_t mine = entry(consumer->index);
    atomic_store_explicit(at64(&consumer->ring, mine + CONSUMER_THRESHOLD), threshold,
                          memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst); /* pairs with the one in strand_publish */
}

uint32_t strand_bell_of(const strand_consumer *consumer) {
    return atomic_load_explicit(consumer_bell(&consumer->ring, consumer->index),
                                memory_order_acquire);
}

void strand_nap(const strand_consumer *consumer, uint32_t seen, uint64_t nap_nanoseconds) {
    strand_sleep(consumer_bell(&consumer->ring, consumer->index), seen, nap_nanoseconds);
}

/* Loads the generation after the count, so that a count of a newer stream is not accepted. */
static bool has_committed(const strand_consumer *consumer, uint64_t threshold) {
    return strand_committed(&consumer->ring) >= threshold &&
           strand_generation_of(&consumer->ring) == consumer->generation;
}

bool strand_consumer_wait(strand_consumer *consumer, uint64_t threshold, uint64_t spin_nanoseconds,
                          uint64_t nap_nanoseconds) {
    const strand_ring *ring = &consumer->ring;
    if (consumer->rewound)
        return false;
    for (spinner spin = {0}; strand_spins_on(&spin, spin_nanoseconds);)
        if (has_committed(consumer, threshold))
            return true;
    strand_arm(consumer, threshold);
    const uint32_t seen = strand_bell_of(consumer);
    if (has_committed(consumer, threshold))
        return true;
    if (strand_status_of(ring) >= STRAND_EOS || strand_aborted(ring) ||
        strand_generation_of(ring) != consumer->generation)
        return false;
    /* The producer waits until this consumer acknowledges: no more records will come before that.
     */
    if (atomic_load_explicit(at64(ring, PRODUCER_THRESHOLD), memory_order_relaxed) >
        consumer->low_water)
        return false;
    consumer->sleeps++;
    export_count(ring, entry(consumer->index) + CONSUMER_SLEEPS, consumer->sleeps);
    strand_nap(consumer, seen, nap_nanoseconds);
    return has_committed(consumer, threshold);
}
