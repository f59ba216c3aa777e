/* What the kernel charges a process, and looking at it again and again until it tells something. */
#ifndef EMSQRT_USAGE_H
#define EMSQRT_USAGE_H

#include <stdbool.h>
#include <stdint.h>

/* Bytes, of /proc/PID/status (proc(5)). */
typedef struct {
    uint64_t most; /* VmHWM: the most that was resident, files' pages included */
    uint64_t anon, file, shmem, data;
} em_usage;

/* Until when a watch goes on. A look that finds one of these passed ends it. */
typedef struct {
    uint64_t charged_max; /* of anon + shmem */
    uint64_t shmem_max;
    uint64_t idle_min; /* of data - anon: reserved and not touched */
    uint64_t near;     /* charged bytes from which on it looks more often */
    int far_ms, near_ms;
    int looks_ms; /* a watch ends after so long in any case */
} em_watch;

/* Read an open status file; all zero when it tells nothing (any more). */
em_usage em_usage_read(int file);

/* What looks have found so far, all zero before the first; several threads may look. */
typedef struct {
    _Atomic uint64_t charged;  /* the most that ever was, between looks too */
    _Atomic uint64_t resident; /* `most` at the last look */
    _Atomic uint64_t file;     /* `file` at the last look */
} em_peak;

/* Look until something is passed, time is up, or `wake` can be read; return the last look. Without
 * time it looks once. */
em_usage em_usage_watch(int file, int wake, const em_watch *watch, em_peak *peak);

#endif
