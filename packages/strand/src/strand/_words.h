/* The ring's shared words: their offsets, and the bells that threads sleep on.
 *
 * Private to _ring*.c. Offsets are those of spec/strand-wire.md.
 *
 * Sleep and wake follow one pattern (store, full fence, load) on both sides:
 *
 *     sleeper: store its threshold; fence; load the counter; sleep if it is too low
 *     waker:   store the counter;   fence; load the threshold; ring if it was crossed
 *
 * The fences are sequentially consistent, so at least one side sees the other's store: either the
 * sleeper sees the counter and does not sleep, or the waker sees the threshold and rings. The
 * sleeper reads the bell before it loads the counter, and the futex call returns at once if the
 * bell has changed since, so a ring between the load and the sleep is not lost.
 */
#ifndef STRAND_WORDS_H
#define STRAND_WORDS_H

#include <stdatomic.h>

#include "_ring.h"

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
    V5_CONSUMERS = 56,
    V5_VACANT = 0x7FFFFFFF,

    GENERATION = 3096,

    PRODUCER_WRITE = 3136,
    PRODUCER_COMMIT = 3144,
    PRODUCER_HEAP_WRITE = 3152,
    PRODUCER_HEAP_COMMIT = 3160,
    PRODUCER_STALLS = 3184,
    PRODUCER_RINGS = 3192,

    PRODUCER_THRESHOLD = 3200,
    STATUS = 3208,
    ABORT = 3212,
    PRODUCER_BELL = 3216,
    JOIN_POSITION = 3224,

    CONSUMER_ENTRY = 3264,
    CONSUMER_ENTRY_BYTES = 64,
    CONSUMER_READ = 0,
    CONSUMER_THRESHOLD = 8,
    CONSUMER_STATE = 20,
    CONSUMER_BELL = 32,
    CONSUMER_SLEEPS = 40,
    CONSUMER_RINGS = 48,
};

typedef _Atomic uint64_t word64;
typedef _Atomic uint32_t word32;

static inline word64 *at64(const strand_ring *ring, uint64_t offset) {
    STRAND_INVARIANT(offset % sizeof(word64) == 0); /* else the access is not atomic */
    return (word64 *)(void *)(ring->base + offset);
}

static inline word32 *at32(const strand_ring *ring, uint64_t offset) {
    STRAND_INVARIANT(offset % sizeof(word32) == 0);
    return (word32 *)(void *)(ring->base + offset);
}

static inline uint64_t entry(unsigned index) {
    STRAND_INVARIANT(index < STRAND_CONSUMERS);
    return CONSUMER_ENTRY + (uint64_t)index * CONSUMER_ENTRY_BYTES;
}

/* The bell that the consumer of entry `index` sleeps on. */
static inline word32 *consumer_bell(const strand_ring *ring, unsigned index) {
    if (ring->doorbell != NULL)
        return (word32 *)(void *)ring->doorbell;
    return at32(ring, entry(index) + CONSUMER_BELL);
}

/* Store a statistics counter for `strand inspect`. Relaxed: the protocol does not depend on it. */
static inline void export_count(const strand_ring *ring, uint64_t offset, uint64_t count) {
    atomic_store_explicit(at64(ring, offset), count, memory_order_relaxed);
}

static inline void pause_cpu(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* A wait that has not slept yet. */
typedef struct {
    uint64_t until; /* on the monotonic clock */
    uint32_t polls;
} spinner;

/* Whether to poll once more before sleeping. Spins for `nanoseconds`, and reads the clock at every
 * 32nd poll: the time is measured instead of counting pauses because the length of a pause differs
 * by a factor of four between processors. */
bool strand_spins_on(spinner *spin, uint64_t nanoseconds);

/* Sleep while *word == seen, for `nanoseconds` at most. The futex is shared: the kernel identifies
 * it by file and offset, so processes may map the segment at different addresses. */
void strand_sleep(word32 *word, uint32_t seen, uint64_t nanoseconds);

/* Increment a bell and wake its sleepers. The increment (release) is ordered after the store that
 * the sleeper waits for: a sleeper that reads the new value also sees that store, and a sleeper
 * that read the old value finds it changed when it calls the futex, and does not sleep. */
void strand_ring_bell(word32 *bell);
void strand_ring_every_bell(const strand_ring *ring);

/* Whether a consumer is attached, plain v5 readers included. */
bool strand_has_reader(const strand_ring *ring);

/* Whether at least one consumer has left and none is attached. */
bool strand_is_abandoned(const strand_ring *ring);

#endif
