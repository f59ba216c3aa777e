/* The ring's core: counters, claims, publication, sleep and wake, over memory somebody else mapped.
 *
 * Layout and protocol: spec/strand-wire.md. Nothing here allocates, knows of Python or blocks
 * except the waits, and those for one bounded nap at most. Every shared word has one writer, except
 * the bells (atomic increments by whoever wakes) and the abort word.
 */
#ifndef STRAND_RING_H
#define STRAND_RING_H

#include <stdbool.h>
#include <stddef.h>
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
    unsigned char *doorbell; /* the bell that every consumer of a fan-in sleeps on; NULL: its own */
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
    uint64_t claimed;      /* records whose slots were handed out */
    uint64_t write;        /* records sealed: filled, in order */
    uint64_t commit;       /* records published */
    uint64_t heap_write;   /* heap bytes claimed, those of unsealed records included */
    uint64_t heap_sealed;  /* heap bytes claimed by sealed records */
    uint64_t heap_moved;   /* records sealed when a payload was last among them */
    uint64_t record_bytes; /* payload bytes claimed since the last seal */
    uint64_t gate;         /* the highest floor shown */
    uint64_t read;         /* last seen floor, refreshed when short of room */
    uint64_t stalls;       /* claims that found no room */
    uint64_t rings;        /* bells rung */
    bool streaming;        /* the status says so */
    bool discards;         /* with no consumer left, overwrite what nobody reads */
    bool raises;           /* with no consumer left, do not wait for another */
} strand_producer;

/* A consumer's private half: one process may hold several entries, and reads what all of them
 * still hold. */
typedef struct {
    strand_ring ring;
    unsigned held;                   /* bit i: entry i is ours */
    unsigned index;                  /* the entry whose bell we sleep on: the lowest held */
    uint32_t generation;             /* of the stream that we read */
    bool rewound;                    /* joining found a new stream: our caller is to be told */
    uint64_t read[STRAND_CONSUMERS]; /* records acknowledged, by held entry */
    uint64_t floor;                  /* the lowest of them: nothing below may be read */
    uint64_t committed;              /* last seen count of published records */
    uint64_t sleeps;                 /* times we went to sleep */
    uint64_t rings;                  /* times we woke the producer */
} strand_consumer;

enum strand_start { STRAND_OLDEST = 0, STRAND_NEXT = 1 };

/* Fill `ring` from geometry. */
void strand_ring_init(strand_ring *ring, void *base, uint32_t version, uint32_t stride,
                      uint64_t capacity, uint64_t heap_capacity);

/* ---- producer ------------------------------------------------------------------------------- */

/* Start a producer where the header's counters stand; `heap_end` has room for `capacity` values
 * and outlives it. What a former producer left unread keeps the whole heap until it is read. */
void strand_producer_init(strand_producer *producer, const strand_ring *ring, uint64_t *heap_end);

/* Set the status to streaming and wake everybody. Claims do it when the caller has not. */
void strand_begin(strand_producer *producer);

/* Claim the next `count` slots, at most `capacity`, and zero them. OK stores the first one's
 * sequence number. A failed claim changes nothing. */
int strand_claim_slots(strand_producer *producer, uint64_t count, uint64_t *seq,
                       uint64_t *threshold);

/* The same for a caller who fills every byte: the slots hold what they held before. */
int strand_claim_span(strand_producer *producer, uint64_t count, uint64_t *seq,
                      uint64_t *threshold);

/* How many slots could be claimed at once now; looks at the consumers when fewer than `wanted`. */
int strand_room(strand_producer *producer, uint64_t wanted, uint64_t *room);

/* Byte offset in the segment of the slot of record `seq`. */
uint64_t strand_slot_at(const strand_ring *ring, uint64_t seq);

/* Claim `bytes` contiguous heap bytes, aligned, for the records under construction. OK stores the
 * monotonic heap offset. A failed claim changes nothing. */
int strand_claim_heap(strand_producer *producer, uint64_t bytes, uint64_t align, uint64_t *offset,
                      uint64_t *threshold);

/* The next `count` claimed records are filled: they will be part of the next publication. */
void strand_seal(strand_producer *producer, uint64_t count);

/* Drop every claimed record that is not sealed, and its heap bytes. */
void strand_abandon(strand_producer *producer);

/* Publish every sealed record and wake the consumers whose threshold was crossed. */
void strand_publish(strand_producer *producer);

/* Publish the heap counter up to what was claimed, before the records are. */
void strand_commit_heap(strand_producer *producer);

/* Claim, copy, seal and publish one payload of a v6 block ring. */
int strand_write_block(strand_producer *producer, const void *payload, uint64_t bytes,
                       uint64_t *threshold);

/* Give the unused end of the newest payload back: it takes `bytes` of what was claimed. */
void strand_shrink_heap(strand_producer *producer, uint64_t offset, uint64_t bytes);

/* Set the stream's status and wake everybody. */
void strand_set_status(const strand_ring *ring, uint32_t status);

/* Rewind to an empty ring of the next generation. The caller has made sure that the stream ended
 * and that no consumer holds records of it. */
void strand_reset(strand_producer *producer);

/* Spin, then sleep for one nap at most, until `threshold` records are given back or something else
 * happened. True when they are. */
bool strand_producer_wait(strand_producer *producer, uint64_t threshold, uint64_t spin_nanoseconds,
                          uint64_t nap_nanoseconds);

/* The first half of such a wait: state the threshold; the bell to sleep on. */
uint32_t strand_producer_arm(const strand_producer *producer, uint64_t threshold);

/* Take the threshold of a wait back that was given up: a consumer must not think that we sleep. */
void strand_producer_disarm(const strand_producer *producer);

/* ---- consumer ------------------------------------------------------------------------------- */

/* Enter consumer entry `index`, whose kernel lock the caller holds. */
void strand_consumer_init(strand_consumer *consumer, const strand_ring *ring);
void strand_join(strand_consumer *consumer, unsigned index, enum strand_start start);

/* Leave it again, and wake the producer. */
void strand_leave(strand_consumer *consumer, unsigned index);

/* Records published so far; whatever is below may be read. */
uint64_t strand_committed(const strand_ring *ring);

/* Whether so many records can be published: the ring has slots for those not given back. */
bool strand_is_possible(const strand_consumer *consumer, uint64_t committed);

/* Whether record `seq` may be read: published, and not given back. */
bool strand_readable(strand_consumer *consumer, uint64_t seq);

/* Whether the producer rewound the ring since we last looked; if so, our reads start again at 0. */
bool strand_follow_reset(strand_consumer *consumer);

/* Locate the payload of record `seq` in a v6 block ring: byte offset in the segment, and length. */
int strand_read_block(strand_consumer *consumer, uint64_t seq, uint64_t *offset, uint64_t *bytes);

/* Check a heap pointer of a readable record: OK stores its byte offset in the segment. */
int strand_locate(const strand_ring *ring, uint64_t start, uint64_t bytes, uint64_t *offset);

/* Give records below `upto` back for entry `index`, and wake the producer when its threshold was
 * crossed. */
int strand_acknowledge(strand_consumer *consumer, unsigned index, uint64_t upto);

/* Spin, then sleep for one nap at most, until the counter reaches `threshold` or the other side
 * ended. True when the counter has reached it. */
bool strand_consumer_wait(strand_consumer *consumer, uint64_t threshold, uint64_t spin_nanoseconds,
                          uint64_t nap_nanoseconds);

/* The halves of a wait over several rings that share a doorbell: state what would be worth waking
 * for, then sleep on the bell as it was before the rings were looked at. */
void strand_arm(const strand_consumer *consumer, uint64_t threshold);
uint32_t strand_bell_of(const strand_consumer *consumer);
void strand_nap(const strand_consumer *consumer, uint32_t seen, uint64_t nap_nanoseconds);

/* ---- either side ---------------------------------------------------------------------------- */

/* Sleep on several bells (aligned u32 words) at once, as they were before the rings were looked at.
 * Where the kernel has no call for that, one glance at them after a millisecond at most. */
void strand_nap_any(void *const *bells, const uint32_t *seen, size_t count,
                    uint64_t nap_nanoseconds);

/* Wake whoever sleeps on a bell. */
void strand_wake_any(void *bell);

/* Ask the producer to stop, and wake everybody. */
void strand_signal_abort(const strand_ring *ring);

/* Records below this may be overwritten: the floor of all attached consumers. */
uint64_t strand_floor(const strand_ring *ring);

/* Mark the entry of a dead consumer, whose kernel lock the caller took, as left. */
void strand_bury(const strand_ring *ring, unsigned index);

uint32_t strand_status_of(const strand_ring *ring);
uint32_t strand_generation_of(const strand_ring *ring);
bool strand_aborted(const strand_ring *ring);
uint32_t strand_consumer_state_of(const strand_ring *ring, unsigned index);

#endif
