#define _GNU_SOURCE /* NOLINT: poll, pread and clock_gettime are POSIX, not C */
#include "usage.h"

#include <poll.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    STATUS_BYTES = 8192,
    /* The Linux kernel counts pages in batches per core. VmHWM is the sum of two counts here, and
     * each of them may be off by half of this. */
    UNSURE_BYTES = 2 * (256 << 10),
};

/* Return the number after a name at the start of a line, in bytes. */
static uint64_t field_of(const char *text, const char *name) {
    const char *at = strstr(text, name);
    if (at == NULL) {
        return 0;
    }
    uint64_t kilobytes = 0;
    for (at += strlen(name); *at == ' ' || *at == '\t'; at++) {
    }
    for (; *at >= '0' && *at <= '9'; at++) {
        kilobytes = 10 * kilobytes + (uint64_t)(*at - '0');
    }
    return kilobytes << 10;
}

em_usage em_usage_read(int file) {
    char text[STATUS_BYTES + 1];
    const ssize_t size = pread(file, text, STATUS_BYTES, 0);
    text[size < 0 ? 0 : size] = '\0';
    return (em_usage){
        .most = field_of(text, "\nVmHWM:"),
        .anon = field_of(text, "\nRssAnon:"),
        .file = field_of(text, "\nRssFile:"),
        .shmem = field_of(text, "\nRssShmem:"),
        .data = field_of(text, "\nVmData:"),
    };
}

static int64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Add a sample to the peaks. If VmHWM has risen since the last sample, the charged peak between the
 * two was at least VmHWM minus the file pages; these are assumed to be no more than in the larger
 * of the two samples. */
static void record_peak(em_peak *peak, const em_usage *use) {
    uint64_t charged = use->anon + use->shmem;
    const uint64_t before = peak->file;
    const uint64_t file_max = (use->file > before ? use->file : before) + UNSURE_BYTES;
    if (peak->resident != 0 && use->most > peak->resident && use->most > file_max + charged) {
        charged = use->most - file_max;
    }
    uint64_t most = peak->charged;
    while (charged > most && !atomic_compare_exchange_weak(&peak->charged, &most, charged)) {
    }
    peak->resident = use->most;
    peak->file = use->file;
}

em_usage em_usage_watch(int file, int wake, const em_watch *watch, em_peak *peak) {
    const int64_t end = now_ms() + watch->looks_ms;
    struct pollfd waker = {.fd = wake, .events = POLLIN};
    for (;;) {
        const em_usage use = em_usage_read(file);
        const uint64_t charged = use.anon + use.shmem;
        record_peak(peak, &use);
        const bool passed = charged > watch->charged_max || use.shmem > watch->shmem_max ||
                            use.data < use.anon + watch->idle_min;
        if (passed || now_ms() >= end ||
            poll(&waker, 1, charged > watch->near ? watch->near_ms : watch->far_ms) != 0 ||
            peak->over != 0) {
            return use;
        }
    }
}
