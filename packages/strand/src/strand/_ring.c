#define _DEFAULT_SOURCE /* syscall */
#include "_ring.h"

#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

_Static_assert(sizeof(_Atomic uint64_t) == 8 && ATOMIC_LLONG_LOCK_FREE == 2,
               "shared counters must be plain lock-free words");
_Static_assert(sizeof(_Atomic uint32_t) == 4 && ATOMIC_INT_LOCK_FREE == 2,
               "shared words must be plain lock-free words");

/* Byte offsets of the shared words (spec/strand-wire.md). */
enum {
    V5_WRITE = 28,
    V5_COMMIT = 32,
    V5_READ = 36,
    V5_STATUS = 40,
    V5_HEAP_WRITE = 44,
    V5_HEAP_COMMIT = 48,
    V5_ABORT = 52,

    PRODUCER_WRITE = 3136,
    PRODUCER_COMMIT = 3144,
    PRODUCER_HEAP_WRITE = 3152,
    PRODUCER_HEAP_COMMIT = 3160,

    PRODUCER_THRESHOLD = 3200,
    STATUS = 3208,
    ABORT = 3212,
    PRODUCER_BELL = 3216,

    CONSUMER_ENTRY = 3264,
    CONSUMER_ENTRY_BYTES = 64,
    CONSUMER_READ = 0,
    CONSUMER_THRESHOLD = 8,
    CONSUMER_STATE = 20,
    CONSUMER_BELL = 32,
};

static const uint64_t V5_RECORDS_MAX = 0x7FFFFFFF;
static const uint64_t BLOCK_ALIGN = 64;
static const uint64_t SKIP_MARK_BYTES = 6;

typedef _Atomic uint64_t word64;
typedef _Atomic uint32_t word32;

static word64 *at64(const strand_ring *ring, uint64_t offset) {
    return (word64 *)(void *)(ring->base + offset);
}

static word32 *at32(const strand_ring *ring, uint64_t offset) {
    return (word32 *)(void *)(ring->base + offset);
}

static uint64_t entry(unsigned index) {
    return CONSUMER_ENTRY + (uint64_t)index * CONSUMER_ENTRY_BYTES;
}

/* ---- sleeping ------------------------------------------------------------------------------- */

static void pause_cpu(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Sleep while *word == seen, for `nanoseconds` at most. Shared futex: the key is the file, so it
 * works between processes that mapped the segment at different addresses. */
static void nap(word32 *word, uint32_t seen, uint64_t nanoseconds) {
    struct timespec limit = {.tv_sec = (time_t)(nanoseconds / 1000000000U),
                             .tv_nsec = (long)(nanoseconds % 1000000000U)};
#ifdef __linux__
    syscall(SYS_futex, word, FUTEX_WAIT, seen, &limit, NULL, 0);
#else
    const struct timespec step = {.tv_nsec = 200000};
    (void)limit;
    if (atomic_load_explicit(word, memory_order_relaxed) == seen)
        nanosleep(&step, NULL);
#endif
}

/* Ring a sleeper's bell. The increment (release) comes after whatever the sleeper waits for, so a
 * sleeper that reads the new bell also sees the reason; one that read the old bell cannot fall
 * asleep on it any more. */
static void ring_bell(word32 *bell) {
    atomic_fetch_add_explicit(bell, 1, memory_order_release);
#ifdef __linux__
    syscall(SYS_futex, bell, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
#endif
}

static void ring_every_bell(const strand_ring *ring) {
    ring_bell(at32(ring, PRODUCER_BELL));
    for (unsigned i = 0; i < STRAND_CONSUMERS; i++)
        ring_bell(at32(ring, entry(i) + CONSUMER_BELL));
}

/* ---- ring ----------------------------------------------------------------------------------- */

void strand_ring_init(strand_ring *ring, void *base, uint32_t version, uint32_t stride,
                      uint64_t capacity, uint64_t heap_capacity) {
    ring->base = base;
    ring->version = version;
    ring->stride = stride;
    ring->capacity = capacity;
    ring->heap_capacity = heap_capacity;
    ring->heap_start = STRAND_HEADER_BYTES + capacity * stride;
}

uint64_t strand_committed(const strand_ring *ring) {
    /* acquire: the slots and payloads below this count were written before it */
    return atomic_load_explicit(at64(ring, PRODUCER_COMMIT), memory_order_acquire);
}

uint64_t strand_acknowledged(const strand_ring *ring) {
    /* acquire: the consumer's reads of what it gave back are over before we overwrite it. Entry 0
     * counts even while vacant, so that a stream is kept for the consumer still to come. */
    uint64_t lowest =
        atomic_load_explicit(at64(ring, entry(0) + CONSUMER_READ), memory_order_acquire);
    for (unsigned i = 1; i < STRAND_CONSUMERS; i++) {
        if (strand_consumer_state_of(ring, i) != STRAND_ATTACHED)
            continue;
        uint64_t read =
            atomic_load_explicit(at64(ring, entry(i) + CONSUMER_READ), memory_order_acquire);
        if (read < lowest)
            lowest = read;
    }
    return lowest;
}

uint32_t strand_status_of(const strand_ring *ring) {
    return atomic_load_explicit(at32(ring, STATUS), memory_order_acquire);
}

bool strand_aborted(const strand_ring *ring) {
    if (atomic_load_explicit(at32(ring, ABORT), memory_order_acquire) != 0)
        return true;
    return ring->version == 5 &&
           atomic_load_explicit(at32(ring, V5_ABORT), memory_order_acquire) != 0;
}

uint32_t strand_consumer_state_of(const strand_ring *ring, unsigned index) {
    return atomic_load_explicit(at32(ring, entry(index) + CONSUMER_STATE), memory_order_acquire);
}

void strand_set_status(const strand_ring *ring, uint32_t status) {
    atomic_store_explicit(at32(ring, STATUS), status, memory_order_release);
    if (ring->version == 5)
        atomic_store_explicit(at32(ring, V5_STATUS), status, memory_order_release);
    ring_every_bell(ring);
}

void strand_signal_abort(const strand_ring *ring) {
    atomic_store_explicit(at32(ring, ABORT), 1, memory_order_release);
    if (ring->version == 5)
        atomic_store_explicit(at32(ring, V5_ABORT), 1, memory_order_release);
    ring_every_bell(ring);
}

/* ---- producer ------------------------------------------------------------------------------- */

void strand_producer_init(strand_producer *producer, const strand_ring *ring, uint64_t *heap_end) {
    *producer = (strand_producer){.ring = *ring, .heap_end = heap_end};
}

/* Refresh the cached count of acknowledged records. False: it says what cannot be. */
static bool refresh_read(strand_producer *producer) {
    uint64_t read = strand_acknowledged(&producer->ring);
    if (read < producer->read || read > producer->commit)
        return false;
    producer->read = read;
    return true;
}

int strand_claim_slot(strand_producer *producer, uint64_t *slot, uint64_t *threshold) {
    const strand_ring *ring = &producer->ring;
    if (strand_aborted(ring))
        return STRAND_ABORTED;
    if (ring->version == 5 && producer->write >= V5_RECORDS_MAX)
        return STRAND_EXHAUSTED;
    if (producer->write - producer->read >= ring->capacity) {
        if (!refresh_read(producer))
            return STRAND_CORRUPT;
        if (producer->write - producer->read >= ring->capacity) {
            *threshold = producer->write + 1 - ring->capacity;
            return STRAND_WAIT;
        }
    }
    *slot = STRAND_HEADER_BYTES + (producer->write & (ring->capacity - 1)) * ring->stride;
    memset(ring->base + *slot, 0, ring->stride);
    return STRAND_OK;
}

/* Where the heap stood after record `count - 1`: nothing below is needed once `count` are read. */
static uint64_t heap_tail(const strand_producer *producer, uint64_t count) {
    return count == 0 ? 0 : producer->heap_end[(count - 1) & (producer->ring.capacity - 1)];
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
    if (bytes > capacity / 2)
        return STRAND_TOO_LARGE;
    uint64_t start = place(producer, bytes, align);
    uint64_t end = start + bytes;
    if (end - producer->heap_sealed > capacity)
        return STRAND_TOO_LARGE;
    if (end - heap_tail(producer, producer->read) > capacity) {
        if (!refresh_read(producer))
            return STRAND_CORRUPT;
        if (end - heap_tail(producer, producer->read) > capacity) {
            *threshold = reads_for_heap(producer, end);
            return STRAND_WAIT;
        }
    }
    if (start / capacity != producer->heap_write / capacity)
        mark_skip(producer);
    producer->heap_write = end;
    *offset = start;
    return STRAND_OK;
}

void strand_seal(strand_producer *producer) {
    producer->heap_end[producer->write & (producer->ring.capacity - 1)] = producer->heap_write;
    producer->heap_sealed = producer->heap_write;
    producer->write++;
}

void strand_abandon(strand_producer *producer) {
    producer->heap_write = producer->heap_sealed;
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
    if (ring->version == 5) {
        atomic_store_explicit(at32(ring, V5_HEAP_WRITE), (uint32_t)heap, memory_order_release);
        atomic_store_explicit(at32(ring, V5_HEAP_COMMIT), (uint32_t)heap, memory_order_release);
        atomic_store_explicit(at32(ring, V5_WRITE), (uint32_t)(after & V5_RECORDS_MAX),
                              memory_order_release);
        atomic_store_explicit(at32(ring, V5_COMMIT), (uint32_t)(after & V5_RECORDS_MAX),
                              memory_order_release);
    }
    /* Store the count, then load the thresholds; the sleeper stores its threshold, then loads the
     * count. With a full fence in both gaps at least one of the two sees the other. */
    atomic_thread_fence(memory_order_seq_cst);
    for (unsigned i = 0; i < STRAND_CONSUMERS; i++) {
        uint64_t wanted =
            atomic_load_explicit(at64(ring, entry(i) + CONSUMER_THRESHOLD), memory_order_relaxed);
        if (before < wanted && wanted <= after)
            ring_bell(at32(ring, entry(i) + CONSUMER_BELL));
    }
}

int strand_write_block(strand_producer *producer, const void *payload, uint64_t bytes,
                       uint64_t *threshold) {
    uint64_t slot = 0;
    uint64_t offset = 0;
    if (bytes > producer->ring.heap_capacity / 2)
        return STRAND_TOO_LARGE;
    int result = strand_claim_slot(producer, &slot, threshold);
    if (result != STRAND_OK)
        return result;
    result = strand_claim_heap(producer, bytes, BLOCK_ALIGN, &offset, threshold);
    if (result != STRAND_OK)
        return result;
    const strand_ring *ring = &producer->ring;
    const uint32_t length = (uint32_t)bytes;
    if (bytes != 0)
        memcpy(ring->base + ring->heap_start + (offset & (ring->heap_capacity - 1)), payload,
               bytes);
    memcpy(ring->base + slot, &offset, sizeof offset);
    memcpy(ring->base + slot + sizeof offset, &length, sizeof length);
    strand_seal(producer);
    strand_publish(producer);
    return STRAND_OK;
}

bool strand_producer_wait(strand_producer *producer, uint64_t threshold, uint32_t spins,
                          uint64_t nap_nanoseconds) {
    const strand_ring *ring = &producer->ring;
    for (uint32_t i = 0; i < spins; i++) {
        if (strand_acknowledged(ring) >= threshold)
            return true;
        pause_cpu();
    }
    atomic_store_explicit(at64(ring, PRODUCER_THRESHOLD), threshold, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst); /* pairs with the one in strand_acknowledge */
    word32 *bell = at32(ring, PRODUCER_BELL);
    const uint32_t seen = atomic_load_explicit(bell, memory_order_acquire);
    if (strand_acknowledged(ring) >= threshold)
        return true;
    if (strand_aborted(ring) || strand_consumer_state_of(ring, 0) == STRAND_LEFT)
        return false;
    nap(bell, seen, nap_nanoseconds);
    return strand_acknowledged(ring) >= threshold;
}

/* ---- consumer ------------------------------------------------------------------------------- */

void strand_consumer_attach(strand_consumer *consumer, const strand_ring *ring, unsigned index) {
    consumer->ring = *ring;
    consumer->index = index;
    consumer->read =
        atomic_load_explicit(at64(ring, entry(index) + CONSUMER_READ), memory_order_relaxed);
    atomic_store_explicit(at32(ring, entry(index) + CONSUMER_STATE), STRAND_ATTACHED,
                          memory_order_release);
}

void strand_consumer_leave(const strand_consumer *consumer) {
    const strand_ring *ring = &consumer->ring;
    atomic_store_explicit(at32(ring, entry(consumer->index) + CONSUMER_STATE), STRAND_LEFT,
                          memory_order_release);
    ring_bell(at32(ring, PRODUCER_BELL));
}

int strand_read_block(const strand_consumer *consumer, uint64_t seq, uint64_t *offset,
                      uint64_t *bytes) {
    const strand_ring *ring = &consumer->ring;
    if (seq < consumer->read || seq >= strand_committed(ring))
        return STRAND_RANGE;
    const unsigned char *slot =
        ring->base + STRAND_HEADER_BYTES + (seq & (ring->capacity - 1)) * ring->stride;
    uint64_t start;
    uint32_t length;
    memcpy(&start, slot, sizeof start);
    memcpy(&length, slot + sizeof start, sizeof length);
    const uint64_t heap =
        atomic_load_explicit(at64(ring, PRODUCER_HEAP_COMMIT), memory_order_acquire);
    const uint64_t physical = start & (ring->heap_capacity - 1);
    if (start > heap || heap - start > ring->heap_capacity || length > heap - start ||
        physical + length > ring->heap_capacity)
        return STRAND_CORRUPT;
    *offset = ring->heap_start + physical;
    *bytes = length;
    return STRAND_OK;
}

int strand_acknowledge(strand_consumer *consumer, uint64_t upto) {
    const strand_ring *ring = &consumer->ring;
    const uint64_t old = consumer->read;
    if (upto < old || upto > strand_committed(ring))
        return STRAND_RANGE;
    if (upto == old)
        return STRAND_OK;
    consumer->read = upto;
    /* release: our reads of these records are done before the producer may overwrite them */
    atomic_store_explicit(at64(ring, entry(consumer->index) + CONSUMER_READ), upto,
                          memory_order_release);
    if (ring->version == 5 && consumer->index == 0)
        atomic_store_explicit(at32(ring, V5_READ), (uint32_t)upto, memory_order_release);
    atomic_thread_fence(memory_order_seq_cst); /* pairs with the one in strand_producer_wait */
    const uint64_t wanted =
        atomic_load_explicit(at64(ring, PRODUCER_THRESHOLD), memory_order_relaxed);
    if (old < wanted && wanted <= upto)
        ring_bell(at32(ring, PRODUCER_BELL));
    return STRAND_OK;
}

bool strand_consumer_wait(const strand_consumer *consumer, uint64_t threshold, uint32_t spins,
                          uint64_t nap_nanoseconds) {
    const strand_ring *ring = &consumer->ring;
    const uint64_t mine = entry(consumer->index);
    for (uint32_t i = 0; i < spins; i++) {
        if (strand_committed(ring) >= threshold)
            return true;
        pause_cpu();
    }
    atomic_store_explicit(at64(ring, mine + CONSUMER_THRESHOLD), threshold, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst); /* pairs with the one in strand_publish */
    word32 *bell = at32(ring, mine + CONSUMER_BELL);
    const uint32_t seen = atomic_load_explicit(bell, memory_order_acquire);
    if (strand_committed(ring) >= threshold)
        return true;
    if (strand_status_of(ring) >= STRAND_EOS || strand_aborted(ring))
        return false;
    nap(bell, seen, nap_nanoseconds);
    return strand_committed(ring) >= threshold;
}
