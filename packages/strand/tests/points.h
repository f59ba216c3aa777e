/* Forced into a copy of the sources (`-include`) by test_fault_injection.py: every change of memory that
 * another process sees, wakes it or sleeps passes strand_point() first. After `strand_points_left`
 * of them the process sends itself `strand_point_signal`. */
#ifndef STRAND_POINTS_H
#define STRAND_POINTS_H

#define _GNU_SOURCE
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SHARED __attribute__((weak, visibility("default")))

enum { STRAND_POINTS_MAX = 4096 };

SHARED long strand_points_left = -1; /* negative: not armed */
SHARED int strand_point_signal = 0;
SHARED long strand_points_passed = 0;
SHARED const char *strand_point_names[STRAND_POINTS_MAX] = {0};

static inline void strand_point(const char *function) {
    if (strand_points_left < 0)
        return;
    if (strand_points_passed < STRAND_POINTS_MAX)
        strand_point_names[strand_points_passed++] = function;
    if (strand_points_left-- == 0)
        kill(getpid(), strand_point_signal);
}

#undef atomic_store_explicit
#ifdef __clang__
#define strand_raw_store __c11_atomic_store
#else
#define strand_raw_store __atomic_store_n
#endif
#define atomic_store_explicit(object, value, order)                                                \
    (strand_point(__func__), strand_raw_store(object, value, order))
#undef atomic_fetch_add_explicit
#ifdef __clang__
#define strand_raw_add __c11_atomic_fetch_add
#else
#define strand_raw_add __atomic_fetch_add
#endif
#define atomic_fetch_add_explicit(object, value, order)                                            \
    (strand_point(__func__), strand_raw_add(object, value, order))
#undef memcpy
#define memcpy(to, from, bytes) (strand_point(__func__), __builtin_memcpy(to, from, bytes))
#undef memset
#define memset(to, byte, bytes) (strand_point(__func__), __builtin_memset(to, byte, bytes))
#undef syscall
#define syscall(...) (strand_point(__func__), (syscall)(__VA_ARGS__))

#endif
