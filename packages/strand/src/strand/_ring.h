/* The ring's core: counters, claims, publication, sleep and wake, over memory somebody else mapped.
 *
 * Layout and protocol: spec/strand-wire.md. Nothing here allocates, knows of Python or blocks
 * except strand_producer_wait and strand_consumer_wait, and those for one bounded nap at most.
 * Every shared word has one writer, except the bells (atomic increments by whoever wakes).
 */
#ifndef STRAND_RING_H
#define STRAND_RING_H

#include <stdbool.h>
#include <stdint.h>

enum {
    STRAND_HEADER_BYTES = 4096,
    STRAND_CONSUMERS = 8,
};

/* What a claim or a read answered. */
enum strand_result {
    STRAND_OK = 0,
    STRAND_WAIT = 1,      /* no room yet: wait until the consumer has read `threshold` records */
    STRAND_TOO_LARGE = 2, /* the record would need more than half of the heap */
    STRAND_ABORTED = 3,   /* the consumer asked the producer to stop */
    STRAND_EXHAUSTED = 4, /* a v5 ring has carried its 2^31 - 1 records */
    STRAND_CORRUPT = 5,   /* a shared counter or pointer is impossible */
    STRAND_RANGE = 6,     /* the record is not committed, or was acknowledged already */
};

enum strand_status {
    STRAND_INITIALIZING = 0,
    STRAND_STREAMING = 1,
    STRAND_EOS = 2,
    STRAND_ERROR = 3,
};

enum strand_consumer_state {
    STRAND_VACANT = 0,
    STRAND_ATTACHED = 1,
    STRAND_LEFT = 2,
};

/* A mapped ring: where its parts lie. Filled from a header that was checked before. */
typedef struct {
    unsigned char *base;
    uint32_t version;
    uint32_t stride;
    uint64_t capacity;      /* records, a power of two */
    uint64_t heap_capacity; /* bytes, a power of two */
    uint64_t heap_start;    /* byte offset of the heap in the segment */
} strand_ring;

/* The producer's private half. `heap_end[seq & (capacity - 1)]` is where the heap stood after
 * `seq`: this array is the whole of heap back-pressure, and no reader needs to know of it. */
typedef struct {
    strand_ring ring;
    uint64_t *heap_end;
    uint64_t write;       /* records sealed */
    uint64_t commit;      /* records published */
    uint64_t heap_write;  /* heap bytes claimed, the record under construction included */
    uint64_t heap_sealed; /* heap bytes claimed by sealed records */
    uint64_t read; /* last seen count of acknowledged records, refreshed when short of room */
} strand_producer;

/* A consumer's private half. */
typedef struct {
    strand_ring ring;
    unsigned index; /* 0..STRAND_CONSUMERS-1: which consumer entry is ours */
    uint64_t read;  /* records acknowledged */
} strand_consumer;

/* Fill `ring` from geometry. */
void strand_ring_init(strand_ring *ring, void *base, uint32_t version, uint32_t stride,
                      uint64_t capacity, uint64_t heap_capacity);

/* Start a producer on a fresh ring; `heap_end` has room for `capacity` values and outlives it. */
void strand_producer_init(strand_producer *producer, const strand_ring *ring, uint64_t *heap_end);

/* Claim the next slot and zero it. OK stores the slot's byte offset in the segment. Claiming again
 * before strand_seal answers with the same slot. */
int strand_claim_slot(strand_producer *producer, uint64_t *slot, uint64_t *threshold);

/* Claim `bytes` contiguous heap bytes, aligned, for the record under construction. OK stores the
 * monotonic heap offset. A failed claim changes nothing. */
int strand_claim_heap(strand_producer *producer, uint64_t bytes, uint64_t align, uint64_t *offset,
                      uint64_t *threshold);

/* The claimed record is filled: it will be part of the next publication. */
void strand_seal(strand_producer *producer);

/* Drop the record under construction and its heap bytes. */
void strand_abandon(strand_producer *producer);

/* Publish every sealed record and wake the consumers whose threshold was crossed. */
void strand_publish(strand_producer *producer);

/* Claim, copy, seal and publish one payload of a v6 block ring. */
int strand_write_block(strand_producer *producer, const void *payload, uint64_t bytes,
                       uint64_t *threshold);

/* Set the stream's status and wake everybody. */
void strand_set_status(const strand_ring *ring, uint32_t status);

/* Ask the producer to stop, and wake everybody. */
void strand_signal_abort(const strand_ring *ring);

/* Enter or leave a consumer entry; leaving wakes the producer. */
void strand_consumer_attach(strand_consumer *consumer, const strand_ring *ring, unsigned index);
void strand_consumer_leave(const strand_consumer *consumer);

/* Records published so far; whatever is below may be read. */
uint64_t strand_committed(const strand_ring *ring);

/* Records that every attached consumer has acknowledged. */
uint64_t strand_acknowledged(const strand_ring *ring);

/* Locate the payload of record `seq` in a v6 block ring: byte offset in the segment, and length. */
int strand_read_block(const strand_consumer *consumer, uint64_t seq, uint64_t *offset,
                      uint64_t *bytes);

/* Give records below `upto` back to the producer, and wake it when its threshold was crossed. */
int strand_acknowledge(strand_consumer *consumer, uint64_t upto);

/* Spin, then sleep for one nap at most, until the counter reaches `threshold` or the other side
 * ended. True when the counter has reached it. */
bool strand_producer_wait(strand_producer *producer, uint64_t threshold, uint32_t spins,
                          uint64_t nap_nanoseconds);
bool strand_consumer_wait(const strand_consumer *consumer, uint64_t threshold, uint32_t spins,
                          uint64_t nap_nanoseconds);

uint32_t strand_status_of(const strand_ring *ring);
bool strand_aborted(const strand_ring *ring);
uint32_t strand_consumer_state_of(const strand_ring *ring, unsigned index);

#endif
