/* The ring's core: counters, claims, publication, sleep and wake, in memory that the caller mapped.
 *
 *     segment:  | header, 4096 bytes | slot 0 | slot 1 | … | slot capacity-1 | heap, 2^n bytes |
 *     slot:     | null bitmap | field 0 | field 1 | … |        `stride` bytes
 *     v6 heap field:  | u64 monotonic heap offset | u32 length | u32 zero |
 *
 *     the v6 slot of (nullable u16, i64, utf8), 32 bytes:
 *
 *     0       1     2     4     8       16       24       28     32
 *     │ nulls │ gap │ u16 │ gap │  i64  │ offset │ length │ zero │
 *                                           └─► heap: … │ text, `length` bytes │ …
 *
 *     record `seq` is in slot `seq mod capacity`; heap offset `at` is byte `at mod heap_capacity`
 *
 *        low-water mark            commit          write        claimed
 *     ───────┼────────────────────────┼───────────────┼─────────────┼───────  sequence numbers
 *     free   │ published, not yet     │ sealed, not   │ being       │ free
 *            │ acknowledged by all    │ yet published │ filled      │
 *
 * commit never falls until a reset, and claimed - low-water mark <= capacity.
 *
 * Layout and protocol: spec/strand-wire.md. Nothing here allocates, calls Python or blocks, except
 * the waits, which block for one bounded nap at most. Every shared word has one writer, except the
 * bells (incremented atomically by every waker) and the abort word.
 */
#ifndef STRAND_RING_H
#define STRAND_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Check an invariant that holds whatever other processes write, in builds with -DSTRAND_DEBUG: the
 * sanitizers' and those of test_race.py. Shared memory is checked by results instead, in every
 * build. */
#ifdef STRAND_DEBUG
#include <assert.h>
#define STRAND_INVARIANT(condition) assert(condition)
#else
#define STRAND_INVARIANT(condition) ((void)sizeof(condition))
#endif

enum {
    STRAND_HEADER_BYTES = 4096,
    STRAND_CONSUMERS = 8,
};

/* Result of a claim or a read. */
enum strand_result {
    STRAND_OK = 0,
    STRAND_WAIT = 1,      /* no room yet: wait until `threshold` records are acknowledged */
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

/* A mapped ring: addresses and sizes of its parts, from a header that the caller has validated. */
typedef struct {
    unsigned char *base;
    unsigned char *doorbell; /* the bell shared by all members of a fan-in; NULL: none */
    uint32_t version;
    uint32_t stride;
    uint64_t capacity;      /* records, a power of two */
    uint64_t heap_capacity; /* bytes, a power of two */
    uint64_t heap_start;    /* byte offset of the heap in the segment */
} strand_ring;

/* The producer's private state. `heap_end[seq & (capacity - 1)]` is the heap counter after record
 * `seq`. Heap back-pressure needs nothing else, so the array is not shared with consumers.
 *
 * Invariants: read <= commit <= write <= claimed <= read + capacity; heap_sealed <= heap_write. */
typedef struct {
    strand_ring ring;
    uint64_t *heap_end;
    uint64_t claimed;       /* records whose slots are claimed */
    uint64_t write;         /* records sealed: filled, in order */
    uint64_t commit;        /* records published */
    uint64_t heap_write;    /* heap bytes claimed, unsealed records included */
    uint64_t heap_sealed;   /* heap bytes claimed by sealed records */
    uint64_t heap_moved;    /* value of `write` after the last seal that included a payload */
    uint64_t record_bytes;  /* payload bytes claimed since the last seal, padding included */
    uint64_t join_position; /* highest low-water mark published; only rises, see refresh_read */
    uint64_t read;          /* cached low-water mark, refreshed only when there is no room */
    uint64_t stalls;        /* claims that found no room */
    uint64_t rings;         /* bells rung */
    bool streaming;         /* the status word has been set to STREAMING */
    bool discards;          /* with no consumer attached, overwrite unread records */
    bool raises;            /* with no consumer attached, do not wait for another */
} strand_producer;

/* A consumer's private state. One view may hold several entries; it may read the records that none
 * of them has acknowledged. */
typedef struct {
    strand_ring ring;
    unsigned held;                   /* bit i: entry i belongs to this view */
    unsigned index;                  /* the entry whose bell a wait sleeps on: the lowest held */
    uint32_t generation;             /* the stream that `read` and `committed` count in */
    bool rewound;                    /* a join noticed a reset that no call has reported yet */
    uint64_t read[STRAND_CONSUMERS]; /* records acknowledged, by held entry */
    uint64_t low_water;              /* the lowest of `read`: no record below may be read */
    uint64_t committed;              /* last seen count of published records */
    uint64_t sleeps;                 /* times a wait slept */
    uint64_t rings;                  /* times the producer was woken */
} strand_consumer;

enum strand_start { STRAND_OLDEST = 0, STRAND_NEXT = 1 };

/* Fill `ring` from geometry. */
void strand_ring_init(strand_ring *ring, void *base, uint32_t version, uint32_t stride,
                      uint64_t capacity, uint64_t heap_capacity);

/* ---- producer ------------------------------------------------------------------------------- */

/* Start a producer at the header's counters; `heap_end` has room for `capacity` values and outlives
 * the producer. Records that an earlier producer left unread reserve the whole heap until they are
 * acknowledged. */
void strand_producer_init(strand_producer *producer, const strand_ring *ring, uint64_t *heap_end);

/* Set the status to STREAMING and ring every bell. The first claim does it too. */
void strand_begin(strand_producer *producer);

/* Claim the next `count` slots, at most `capacity`, and zero them. OK stores the first one's
 * sequence number. A failed claim changes nothing. */
int strand_claim_slots(strand_producer *producer, uint64_t count, uint64_t *seq,
                       uint64_t *threshold);

/* The same without zeroing, for a caller that overwrites every byte of the slots. */
int strand_claim_span(strand_producer *producer, uint64_t count, uint64_t *seq,
                      uint64_t *threshold);

/* How many slots can be claimed at once now; rereads the consumers' positions when that is fewer
 * than `wanted`. */
int strand_room(strand_producer *producer, uint64_t wanted, uint64_t *room);

/* Byte offset in the segment of the slot of record `seq`. */
uint64_t strand_slot_at(const strand_ring *ring, uint64_t seq);

/* Claim `bytes` contiguous heap bytes, aligned, for the records under construction. OK stores the
 * monotonic heap offset. A failed claim changes nothing. */
int strand_claim_heap(strand_producer *producer, uint64_t bytes, uint64_t align, uint64_t *offset,
                      uint64_t *threshold);

/* Mark the next `count` claimed records as filled: the next strand_publish includes them. */
void strand_seal(strand_producer *producer, uint64_t count);

/* Drop every claimed record that is not sealed, and its heap bytes. */
void strand_abandon(strand_producer *producer);

/* Publish every sealed record and wake the consumers whose threshold was crossed. */
void strand_publish(strand_producer *producer);

/* Publish the heap counter for all claimed heap bytes, ahead of their records. */
void strand_commit_heap(strand_producer *producer);

/* Claim, copy, seal and publish one payload of a v6 block ring. */
int strand_write_block(strand_producer *producer, const void *payload, uint64_t bytes,
                       uint64_t *threshold);

/* Return the unused end of the newest payload to the heap: `bytes` of it are kept. */
void strand_shrink_heap(strand_producer *producer, uint64_t offset, uint64_t bytes);

/* Set the stream's status and ring every bell. */
void strand_set_status(const strand_ring *ring, uint32_t status);

/* Reset to an empty ring of the next generation. The caller has checked that the stream has ended
 * and that no consumer has unacknowledged records. */
void strand_reset(strand_producer *producer);

/* Spin, then sleep for one nap at most, until `threshold` records are acknowledged or the bell is
 * rung for another reason. True when they are acknowledged. */
bool strand_producer_wait(strand_producer *producer, uint64_t threshold, uint64_t spin_nanoseconds,
                          uint64_t nap_nanoseconds);

/* The first half of strand_producer_wait: store the threshold and return the bell's value. */
uint32_t strand_producer_arm(const strand_producer *producer, uint64_t threshold);

/* Clear the threshold of a cancelled wait, so that consumers do not ring for it. */
void strand_producer_disarm(const strand_producer *producer);

/* ---- consumer ------------------------------------------------------------------------------- */

/* Attach to consumer entry `index`, whose kernel lock the caller holds. */
void strand_consumer_init(strand_consumer *consumer, const strand_ring *ring);
void strand_join(strand_consumer *consumer, unsigned index, enum strand_start start);

/* Mark the entry as left, and wake the producer. */
void strand_leave(strand_consumer *consumer, unsigned index);

/* Records published so far. */
uint64_t strand_committed(const strand_ring *ring);

/* Whether a commit counter of `committed` is possible: the ring has slots for the records that are
 * not acknowledged. False means that the counter is corrupt. */
bool strand_is_possible(const strand_consumer *consumer, uint64_t committed);

/* Whether record `seq` may be read: published, and not acknowledged. */
bool strand_readable(strand_consumer *consumer, uint64_t seq);

/* Whether the producer has reset the ring since the last call; if so, positions restart at 0. */
bool strand_follow_reset(strand_consumer *consumer);

/* Locate the payload of record `seq` in a v6 block ring: byte offset in the segment, and length. */
int strand_read_block(strand_consumer *consumer, uint64_t seq, uint64_t *offset, uint64_t *bytes);

/* Check a heap pointer of a readable record: OK stores its byte offset in the segment. */
int strand_locate(const strand_ring *ring, uint64_t start, uint64_t bytes, uint64_t *offset);

/* Acknowledge the records below `upto` for entry `index`, and wake the producer when its threshold
 * was crossed. */
int strand_acknowledge(strand_consumer *consumer, unsigned index, uint64_t upto);

/* Spin, then sleep for one nap at most, until the commit counter reaches `threshold` or the stream
 * ends. True when the counter has reached it. */
bool strand_consumer_wait(strand_consumer *consumer, uint64_t threshold, uint64_t spin_nanoseconds,
                          uint64_t nap_nanoseconds);

/* The parts of a wait over several rings that share a doorbell: store the threshold (arm), read the
 * bell, check the rings, then sleep unless the bell has changed since it was read. */
void strand_arm(const strand_consumer *consumer, uint64_t threshold);
uint32_t strand_bell_of(const strand_consumer *consumer);
void strand_nap(const strand_consumer *consumer, uint32_t seen, uint64_t nap_nanoseconds);

/* ---- either side ---------------------------------------------------------------------------- */

/* Sleep until one of several bells (aligned u32 words) differs from its value in `seen`, which was
 * read before the rings were checked. Without futex_waitv, returns after a millisecond at most. */
void strand_nap_any(void *const *bells, const uint32_t *seen, size_t count,
                    uint64_t nap_nanoseconds);

/* Wake every thread that sleeps on a bell. */
void strand_wake_any(void *bell);

/* Ask the producer to stop, and ring every bell. */
void strand_signal_abort(const strand_ring *ring);

/* The low-water mark: the lowest position of the attached consumers; with none attached, the
 * highest position of those that have left. Records below it may be overwritten. */
uint64_t strand_low_water(const strand_ring *ring);

/* Mark the entry of a dead consumer as left; the caller holds the entry's kernel lock. */
void strand_mark_left(const strand_ring *ring, unsigned index);

uint32_t strand_status_of(const strand_ring *ring);
uint32_t strand_generation_of(const strand_ring *ring);
bool strand_aborted(const strand_ring *ring);
uint32_t strand_consumer_state_of(const strand_ring *ring, unsigned index);

#endif
