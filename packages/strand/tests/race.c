/* The ring's core between two threads of one process, for ThreadSanitizer: it reports every access
 * that the counters' acquire and release do not order. Built and run by test_race.py. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "_ring.h"

enum { RECORDS = 50000, CAPACITY = 8, HEAP = 1024, SPINS = 50, NAP = 100000000 };

static strand_ring ring;

static size_t length_of(uint64_t seq) {
    return 8 + seq % 190;
}

static void *produce(void *unused) {
    static uint64_t heap_end[CAPACITY];
    strand_producer producer;
    (void)unused;
    strand_producer_init(&producer, &ring, heap_end);
    strand_set_status(&ring, STRAND_STREAMING);
    for (uint64_t seq = 0; seq < RECORDS; seq++) {
        unsigned char payload[200];
        uint64_t threshold = 0;
        int result;
        memset(payload, (int)(seq & 255), sizeof payload);
        memcpy(payload, &seq, sizeof seq);
        while ((result = strand_write_block(&producer, payload, length_of(seq), &threshold)) ==
               STRAND_WAIT)
            strand_producer_wait(&producer, threshold, SPINS, NAP);
        if (result != STRAND_OK)
            abort();
    }
    strand_set_status(&ring, STRAND_EOS);
    return NULL;
}

static void check(const strand_consumer *consumer, uint64_t seq) {
    uint64_t offset, length, found;
    if (strand_read_block(consumer, seq, &offset, &length) != STRAND_OK || length != length_of(seq))
        abort();
    memcpy(&found, ring.base + offset, sizeof found);
    if (found != seq)
        abort();
    for (uint64_t at = sizeof seq; at < length; at++)
        if (ring.base[offset + at] != (seq & 255))
            abort();
}

int main(void) {
    static _Alignas(4096) unsigned char segment[8192];
    pthread_t thread;
    strand_consumer consumer;
    uint64_t seq = 0;
    strand_ring_init(&ring, segment, 6, 16, CAPACITY, HEAP);
    strand_consumer_attach(&consumer, &ring, 0);
    pthread_create(&thread, NULL, produce, NULL);
    while (seq < RECORDS) {
        strand_consumer_wait(&consumer, seq + 1, SPINS, NAP);
        while (seq < strand_committed(&ring)) {
            check(&consumer, seq);
            if (strand_acknowledge(&consumer, ++seq) != STRAND_OK)
                abort();
        }
    }
    pthread_join(thread, NULL);
    printf("read %d\n", RECORDS);
    return strand_status_of(&ring) != STRAND_EOS;
}
