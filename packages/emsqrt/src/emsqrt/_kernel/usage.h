/* Sample the memory that the Linux kernel charges a process, and wait until it passes a limit. */
#ifndef EMSQRT_USAGE_H
#define EMSQRT_USAGE_H

#include <stdbool.h>
#include <stdint.h>

/* Fields of /proc/PID/status (proc(5)), in bytes. */
typedef struct {
    uint64_t most; /* VmHWM: peak of the resident pages, file pages included */
    uint64_t anon, file, shmem, data;
} em_usage;

/* The limits of a watch. A sample that is past one of them ends it. */
typedef struct {
    uint64_t charged_max; /* of anon + shmem */
    uint64_t shmem_max;
    uint64_t idle_min; /* minimum of data - anon: reserved but untouched memory */
    uint64_t near; /* charged bytes above which it samples every near_ms instead of every far_ms */
    int far_ms, near_ms;
    int looks_ms; /* a watch ends after this time in any case */
} em_watch;

/* Read an open status file; all zero when it cannot be read, as after the process has ended. */
em_usage em_usage_read(int file);

/* The peaks that samples have found so far, all zero before the first; several threads may update
 * it. */
typedef struct {
    _Atomic uint64_t charged;  /* peak of the charged bytes, between samples too */
    _Atomic uint64_t resident; /* `most` of the last sample */
    _Atomic uint64_t file;     /* `file` of the last sample */
    _Atomic uint64_t over;     /* set by others: return instead of sampling again */
} em_peak;

/* Sample until a limit is passed, the time is up, `wake` is readable, or `peak` says that it is over;
 * return the last sample. With a time of 0 it samples once. */
em_usage em_usage_watch(int file, int wake, const em_watch *watch, em_peak *peak);

#endif
