/* The ring's core between threads of one process, for ThreadSanitizer: it reports every access that
 * acquire and release do not order. Contents are checked as well. Built and run by test_race.py:
 * `race several|abort|doorbell`. Naps never end, so a lost wake-up hangs. */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "_ring.h"
#include "_words.h"

enum { CAPACITY = 4, HEAP = 256, SPIN = 500, STREAMS = 12, RECORDS = 1500, PAYLOAD_MAX = 100 };

static const uint64_t NAP = 1000000000000U;

typedef struct {
    _Alignas(4096) unsigned char segment[8192];
    strand_ring ring;
    pthread_mutex_t held[STRAND_CONSUMERS]; /* the kernel locks of the consumers' entries */
    uint64_t records;                       /* of each stream */
    unsigned streams;
} world;

static world worlds[2];
static _Atomic uint32_t doorbell;

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "line %d: not " #condition "\n", __LINE__);                            \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static void make(world *w, unsigned streams, uint64_t records) {
    strand_ring_init(&w->ring, w->segment, 6, 16, CAPACITY, HEAP);
    for (unsigned i = 0; i < STRAND_CONSUMERS; i++)
        pthread_mutex_init(&w->held[i], NULL);
    w->records = records;
    w->streams = streams;
}

/* ---- what a record holds -------------------------------------------------------------------- */

static size_t length_of(uint64_t seq) {
    return 9 + seq * 37 % (PAYLOAD_MAX - 9);
}

static void fill(unsigned char *payload, uint64_t seq, uint32_t generation) {
    memset(payload, (int)((seq + generation) & 255), length_of(seq));
    memcpy(payload, &seq, sizeof seq);
}

static void check_record(strand_consumer *consumer, uint64_t seq) {
    uint64_t offset = 0, length = 0, found = 0;
    CHECK(strand_read_block(consumer, seq, &offset, &length) == STRAND_OK);
    CHECK(length == length_of(seq));
    const unsigned char *payload = consumer->ring.base + offset;
    memcpy(&found, payload, sizeof found);
    CHECK(found == seq);
    for (size_t at = sizeof seq; at < length; at++)
        CHECK(payload[at] == ((seq + consumer->generation) & 255));
}

/* ---- producer ------------------------------------------------------------------------------- */

static int write_in_place(strand_producer *producer, uint64_t *threshold) {
    uint64_t seq = 0, offset = 0;
    int result = strand_claim_slots(producer, 1, &seq, threshold);
    if (result != STRAND_OK)
        return result;
    const size_t length = length_of(seq);
    result = strand_claim_heap(producer, PAYLOAD_MAX, 8, &offset, threshold);
    if (result != STRAND_OK) {
        strand_abandon(producer);
        return result;
    }
    const strand_ring *ring = &producer->ring;
    fill(ring->base + ring->heap_start + (offset & (HEAP - 1)), seq, strand_generation_of(ring));
    strand_shrink_heap(producer, offset, length);
    unsigned char *slot = ring->base + strand_slot_at(ring, seq);
    memcpy(slot, &offset, sizeof offset);
    memcpy(slot + sizeof offset, &length, 4);
    strand_commit_heap(producer);
    strand_seal(producer, 1);
    strand_publish(producer);
    return STRAND_OK;
}

static int write_one(strand_producer *producer, uint64_t *threshold) {
    unsigned char payload[PAYLOAD_MAX];
    if (producer->write % 3 == 0)
        return write_in_place(producer, threshold);
    fill(payload, producer->write, strand_generation_of(&producer->ring));
    return strand_write_block(producer, payload, length_of(producer->write), threshold);
}

/* What StrandWriter.reset does: keep joiners out, and begin when everything is read. */
static bool try_reset(world *w, strand_producer *producer) {
    bool locked[STRAND_CONSUMERS] = {false}, settled = true;
    for (unsigned i = 0; i < STRAND_CONSUMERS && settled; i++) {
        locked[i] = pthread_mutex_trylock(&w->held[i]) == 0;
        settled = locked[i] || (strand_consumer_state_of(&w->ring, i) == STRAND_ATTACHED &&
                                atomic_load(at64(&w->ring, entry(i))) == producer->commit);
    }
    if (settled)
        strand_reset(producer);
    for (unsigned i = 0; i < STRAND_CONSUMERS; i++)
        if (locked[i])
            pthread_mutex_unlock(&w->held[i]);
    return settled;
}

static void *produce(void *argument) {
    world *w = argument;
    uint64_t heap_end[CAPACITY];
    strand_producer producer;
    strand_producer_init(&producer, &w->ring, heap_end);
    for (unsigned stream = 0; stream < w->streams; stream++) {
        while (stream != 0 && !try_reset(w, &producer))
            sched_yield();
        while (producer.write < w->records) {
            uint64_t threshold = 0;
            const int result = write_one(&producer, &threshold);
            if (result == STRAND_ABORTED) {
                strand_set_status(&w->ring, STRAND_ERROR);
                return NULL;
            }
            CHECK(result == STRAND_OK || result == STRAND_WAIT);
            if (result == STRAND_WAIT)
                strand_producer_wait(&producer, threshold, SPIN, NAP);
        }
        strand_set_status(&w->ring, STRAND_EOS);
    }
    return NULL;
}

/* ---- consumers ------------------------------------------------------------------------------ */

static bool is_over(const world *w) {
    const uint32_t status = strand_status_of(&w->ring);
    return status == STRAND_ERROR ||
           (status == STRAND_EOS && strand_generation_of(&w->ring) + 1 == w->streams);
}

/* Read up to `most` records in entry `index`; false when no more will come. */
static bool visit(world *w, unsigned index, enum strand_start start, uint64_t most) {
    strand_consumer consumer;
    pthread_mutex_lock(&w->held[index]);
    strand_consumer_init(&consumer, &w->ring);
    strand_join(&consumer, index, start);
    bool more = true;
    for (uint64_t done = 0; more && done < most;) {
        const uint64_t seq = consumer.read[index];
        if (strand_consumer_wait(&consumer, seq + 1, SPIN, NAP)) {
            check_record(&consumer, seq);
            CHECK(strand_acknowledge(&consumer, index, seq + 1) == STRAND_OK);
            done++;
        } else if (!strand_follow_reset(&consumer) && strand_status_of(&w->ring) >= STRAND_EOS &&
                   strand_committed(&w->ring) <= seq) {
            more = !is_over(w);
            if (most != UINT64_MAX)
                break; /* come back in the next stream */
            sched_yield();
        }
    }
    strand_leave(&consumer, index);
    pthread_mutex_unlock(&w->held[index]);
    return more;
}

static void *stay(void *argument) {
    while (visit(argument, 0, STRAND_OLDEST, UINT64_MAX))
        continue;
    return NULL;
}

static void *come_and_go(void *argument) {
    uint64_t visits = 0;
    while (visit(argument, 1, visits % 2 == 0 ? STRAND_OLDEST : STRAND_NEXT, 1 + visits % 5))
        visits++;
    return NULL;
}

/* One consumer of two rings that sleeps on a bell of both. */
static void *merge(void *unused) {
    strand_consumer consumers[2];
    (void)unused;
    for (unsigned i = 0; i < 2; i++) {
        strand_consumer_init(&consumers[i], &worlds[i].ring);
        strand_join(&consumers[i], 0, STRAND_OLDEST);
    }
    for (;;) {
        for (unsigned i = 0; i < 2; i++)
            strand_arm(&consumers[i], consumers[i].read[0] + 1);
        void *bell = &doorbell;
        const uint32_t seen = strand_bell_of(&consumers[0]);
        bool idle = true, over = true;
        for (unsigned i = 0; i < 2; i++) {
            const bool ended = is_over(&worlds[i]);
            over = over && ended;
            for (; consumers[i].read[0] < strand_committed(&worlds[i].ring); idle = over = false) {
                check_record(&consumers[i], consumers[i].read[0]);
                CHECK(strand_acknowledge(&consumers[i], 0, consumers[i].read[0] + 1) == STRAND_OK);
            }
        }
        if (over)
            return NULL;
        if (idle)
            strand_nap_any(&bell, &seen, 1, NAP);
    }
}

/* ---- runs ----------------------------------------------------------------------------------- */

static void *ask_to_stop(void *argument) {
    world *w = argument;
    while (strand_committed(&w->ring) < RECORDS / 2)
        sched_yield();
    strand_signal_abort(&w->ring);
    return NULL;
}

static void run(void *(*const *programs)(void *), world *const *arguments, size_t count) {
    pthread_t threads[4];
    for (size_t i = 0; i < count; i++)
        pthread_create(&threads[i], NULL, programs[i], arguments[i]);
    for (size_t i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
}

int main(int count, char **arguments) {
    const char *mode = count > 1 ? arguments[1] : "several";
    world *const same[] = {&worlds[0], &worlds[0], &worlds[0], &worlds[0]};
    world *const both[] = {&worlds[0], &worlds[1], NULL};
    make(&worlds[0], strcmp(mode, "several") == 0 ? STREAMS : 1, RECORDS);
    make(&worlds[1], 1, RECORDS);
    if (strcmp(mode, "doorbell") == 0) {
        void *(*const programs[])(void *) = {produce, produce, merge};
        worlds[0].ring.doorbell = worlds[1].ring.doorbell = (unsigned char *)&doorbell;
        run(programs, both, 3);
    } else {
        void *(*const programs[])(void *) = {produce, stay, come_and_go, ask_to_stop};
        run(programs, same, strcmp(mode, "abort") == 0 ? 4 : 3);
    }
    puts("done");
    return 0;
}
