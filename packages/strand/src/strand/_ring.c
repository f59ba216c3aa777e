#define _DEFAULT_SOURCE /* syscall */
#include <errno.h>
#include <limits.h>
#include <time.h>

#include "_words.h"

#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

/* ---- sleeping ------------------------------------------------------------------------------- */

bool strand_spins_on(spinner *spin, uint64_t nanoseconds) {
    if (nanoseconds == 0)
        return false;
    if (spin->polls++ % 32 != 0) {
        pause_cpu();
        return true;
    }
    struct timespec clock;
    clock_gettime(CLOCK_MONOTONIC, &clock);
    const uint64_t now = (uint64_t)clock.tv_sec * 1000000000U + (uint64_t)clock.tv_nsec;
    if (spin->until == 0)
        spin->until = now + nanoseconds;
    return now < spin->until;
}

void strand_sleep(word32 *word, uint32_t seen, uint64_t nanoseconds) {
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

void strand_ring_bell(word32 *bell) {
    atomic_fetch_add_explicit(bell, 1, memory_order_release);
#ifdef __linux__
    syscall(SYS_futex, bell, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
#endif
}

void strand_ring_every_bell(const strand_ring *ring) {
    strand_ring_bell(at32(ring, PRODUCER_BELL));
    for (unsigned i = 0; i < STRAND_CONSUMERS; i++)
        strand_ring_bell(at32(ring, entry(i) + CONSUMER_BELL));
    if (ring->doorbell != NULL)
        strand_ring_bell(consumer_bell(ring, 0));
}

#ifdef __linux__
/* Older headers have neither the number nor the structure (Linux 5.16). */
enum { WAITV_NUMBER = 449, WAITV_U32 = 2, WAITV_MAX = 128 };
struct waiter {
    uint64_t seen;
    uint64_t word;
    uint32_t flags;
    uint32_t reserved;
};

static bool sleep_on_any(void *const *bells, const uint32_t *seen, size_t count,
                         uint64_t nanoseconds) {
    struct waiter waiters[WAITV_MAX];
    struct timespec until;
    if (count > WAITV_MAX)
        return false;
    clock_gettime(CLOCK_MONOTONIC, &until);
    nanoseconds += (uint64_t)until.tv_nsec;
    until.tv_sec += (time_t)(nanoseconds / 1000000000U);
    until.tv_nsec = (long)(nanoseconds % 1000000000U);
    for (size_t i = 0; i < count; i++)
        waiters[i] = (struct waiter){seen[i], (uint64_t)(uintptr_t)bells[i], WAITV_U32, 0};
    const long woken = syscall(WAITV_NUMBER, waiters, (unsigned)count, 0, &until, CLOCK_MONOTONIC);
    /* Any other error: a kernel before 5.16, or a container whose filter rejects the call. */
    return woken >= 0 || errno == EAGAIN || errno == ETIMEDOUT || errno == EINTR;
}
#endif

void strand_nap_any(void *const *bells, const uint32_t *seen, size_t count,
                    uint64_t nap_nanoseconds) {
    const uint64_t poll_nanoseconds = 1000000; /* without futex_waitv: poll every millisecond */
    bool several = false;
    for (size_t i = 1; i < count; i++)
        several = several || bells[i] != bells[0];
#ifdef __linux__
    if (several && sleep_on_any(bells, seen, count, nap_nanoseconds))
        return;
#endif
    for (size_t i = 0; several && i < count; i++)
        if (atomic_load_explicit((word32 *)bells[i], memory_order_acquire) != seen[i])
            return;
    strand_sleep(bells[0], seen[0],
                 several && poll_nanoseconds < nap_nanoseconds ? poll_nanoseconds
                                                               : nap_nanoseconds);
}

void strand_wake_any(void *bell) {
    strand_ring_bell(bell);
}

/* ---- ring ----------------------------------------------------------------------------------- */

void strand_ring_init(strand_ring *ring, void *base, uint32_t version, uint32_t stride,
                      uint64_t capacity, uint64_t heap_capacity) {
    /* powers of two: positions are taken modulo the capacities by a mask */
    STRAND_INVARIANT(capacity != 0 && (capacity & (capacity - 1)) == 0);
    STRAND_INVARIANT(heap_capacity != 0 && (heap_capacity & (heap_capacity - 1)) == 0);
    *ring = (strand_ring){.base = base,
                          .version = version,
                          .stride = stride,
                          .capacity = capacity,
                          .heap_capacity = heap_capacity,
                          .heap_start = STRAND_HEADER_BYTES + capacity * stride};
}

uint64_t strand_slot_at(const strand_ring *ring, uint64_t seq) {
    return STRAND_HEADER_BYTES + (seq & (ring->capacity - 1)) * ring->stride;
}

uint64_t strand_committed(const strand_ring *ring) {
    /* acquire, pairs with the release store in strand_publish: the slots and payloads of all
     * records below this count are visible */
    return atomic_load_explicit(at64(ring, PRODUCER_COMMIT), memory_order_acquire);
}

static uint64_t read_of(const strand_ring *ring, unsigned index) {
    /* acquire, pairs with the release store in advance_read: the consumer has finished reading the
     * records below this count, so the producer may overwrite them */
    return atomic_load_explicit(at64(ring, entry(index) + CONSUMER_READ), memory_order_acquire);
}

/* The low-water mark of a v5 ring: a plain v5 reader has no consumer entry and stores its position
 * in the v5 part of the header instead. */
static uint64_t v5_low_water(const strand_ring *ring, uint64_t lowest, uint64_t furthest) {
    for (unsigned i = 0; i < STRAND_CONSUMERS; i++) {
        uint32_t read =
            atomic_load_explicit(at32(ring, V5_CONSUMERS + 4 * i), memory_order_acquire);
        if (read != V5_VACANT && read < lowest)
            lowest = read;
    }
    if (lowest != UINT64_MAX)
        return lowest;
    uint32_t cursor = atomic_load_explicit(at32(ring, V5_READ), memory_order_acquire);
    return cursor > furthest ? cursor : furthest;
}

uint64_t strand_low_water(const strand_ring *ring) {
    uint64_t lowest = UINT64_MAX; /* position of an attached consumer */
    uint64_t furthest = 0;        /* position of one that left: its successor continues there */
    for (unsigned i = 0; i < STRAND_CONSUMERS; i++) {
        /* the state first: the acquire load in it pairs with the release store in enter, so that
         * the position of an attached consumer is not an older one of the entry */
        const uint32_t state = strand_consumer_state_of(ring, i);
        if (state == STRAND_VACANT)
            continue;
        const uint64_t read = read_of(ring, i);
        if (state == STRAND_ATTACHED && read < lowest)
            lowest = read;
        if (state == STRAND_LEFT && read > furthest)
            furthest = read;
    }
    if (ring->version == 5)
        return v5_low_water(ring, lowest, furthest);
    return lowest != UINT64_MAX ? lowest : furthest;
}

bool strand_has_reader(const strand_ring *ring) {
    for (unsigned i = 0; i < STRAND_CONSUMERS; i++) {
        if (strand_consumer_state_of(ring, i) == STRAND_ATTACHED)
            return true;
        if (ring->version == 5 && atomic_load_explicit(at32(ring, V5_CONSUMERS + 4 * i),
                                                       memory_order_relaxed) != V5_VACANT)
            return true;
    }
    return false;
}

bool strand_is_abandoned(const strand_ring *ring) {
    bool left = false;
    for (unsigned i = 0; i < STRAND_CONSUMERS; i++)
        left = left || strand_consumer_state_of(ring, i) == STRAND_LEFT;
    return left && !strand_has_reader(ring);
}

uint32_t strand_status_of(const strand_ring *ring) {
    return atomic_load_explicit(at32(ring, STATUS), memory_order_acquire);
}

uint32_t strand_generation_of(const strand_ring *ring) {
    return atomic_load_explicit(at32(ring, GENERATION), memory_order_acquire);
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
    /* release, pairs with strand_status_of: who sees the end also sees the last commit, so that a
     * count loaded after the status is final */
    atomic_store_explicit(at32(ring, STATUS), status, memory_order_release);
    if (ring->version == 5)
        atomic_store_explicit(at32(ring, V5_STATUS), status, memory_order_release);
    strand_ring_every_bell(ring);
}

void strand_signal_abort(const strand_ring *ring) {
    atomic_store_explicit(at32(ring, ABORT), 1, memory_order_release);
    if (ring->version == 5)
        atomic_store_explicit(at32(ring, V5_ABORT), 1, memory_order_release);
    strand_ring_every_bell(ring);
}

void strand_mark_left(const strand_ring *ring, unsigned index) {
    atomic_store_explicit(at32(ring, entry(index) + CONSUMER_STATE), STRAND_LEFT,
                          memory_order_release);
    strand_ring_bell(at32(ring, PRODUCER_BELL));
}
