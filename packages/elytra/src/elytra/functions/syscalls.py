"""Numbers of the system calls that a confined process may make, by machine.

From the kernel's tables: arch/x86/entry/syscalls/syscall_64.tbl, and include/uapi/asm-generic/unistd.h,
which aarch64 uses. Calls that a machine does not have are left out of its table.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MACHINES", "Machine"]


@dataclass(frozen=True, slots=True)
class Machine:
    """The system calls of one machine.

    Args:
        audit_arch: Its `AUDIT_ARCH_*` (linux/audit.h), which a seccomp filter compares.
        plain: Calls that are allowed whatever their arguments are, by number.
        special: Calls whose arguments decide, by name.
    """

    audit_arch: int
    plain: frozenset[int]
    special: dict[str, int]


# What CPython, its C library, pyarrow and numpy use after they were loaded: files that are open, memory,
# threads, clocks. No call that makes a process, a socket or a file, or that names another process.
_X86_64 = {
    "read": 0, "write": 1, "close": 3, "stat": 4, "fstat": 5, "lstat": 6, "poll": 7, "lseek": 8,
    "mmap": 9, "mprotect": 10, "munmap": 11, "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14,
    "rt_sigreturn": 15, "pread64": 17, "readv": 19, "writev": 20, "access": 21,
    "select": 23, "sched_yield": 24, "mremap": 25, "madvise": 28, "dup": 32, "nanosleep": 35,
    "getpid": 39, "exit": 60, "uname": 63, "getcwd": 79, "readlink": 89,
    "gettimeofday": 96, "getrlimit": 97, "getrusage": 98, "sysinfo": 99, "times": 100,
    "getuid": 102, "getgid": 104, "geteuid": 107, "getegid": 108, "getppid": 110,
    "sigaltstack": 131, "gettid": 186, "time": 201, "futex": 202, "sched_getaffinity": 204,
    "getdents64": 217, "restart_syscall": 219, "clock_gettime": 228, "clock_getres": 229,
    "clock_nanosleep": 230, "exit_group": 231, "newfstatat": 262, "readlinkat": 267,
    "faccessat": 269, "pselect6": 270, "ppoll": 271, "set_robust_list": 273, "getcpu": 309,
    "getrandom": 318, "membarrier": 324, "statx": 332, "rseq": 334, "faccessat2": 439,
}  # fmt: skip
_X86_64_SPECIAL = {
    "open": 2, "clone": 56, "kill": 62, "fcntl": 72, "prctl": 157, "tgkill": 234, "openat": 257,
    "prlimit64": 302, "clone3": 435,
}  # fmt: skip
_AARCH64 = {
    "getcwd": 17, "dup": 23, "faccessat": 48, "close": 57,
    "getdents64": 61, "lseek": 62, "read": 63, "write": 64, "readv": 65, "writev": 66,
    "pread64": 67, "pselect6": 72, "ppoll": 73, "readlinkat": 78, "newfstatat": 79, "fstat": 80,
    "exit": 93, "exit_group": 94, "futex": 98, "set_robust_list": 99, "nanosleep": 101,
    "clock_gettime": 113, "clock_getres": 114, "clock_nanosleep": 115, "sched_getaffinity": 123,
    "sched_yield": 124, "restart_syscall": 128, "sigaltstack": 132, "rt_sigaction": 134,
    "rt_sigprocmask": 135, "rt_sigreturn": 139, "times": 153, "uname": 160, "getrlimit": 163,
    "getrusage": 165, "getcpu": 168, "gettimeofday": 169, "getpid": 172, "getppid": 173,
    "getuid": 174, "geteuid": 175, "getgid": 176, "getegid": 177, "gettid": 178, "sysinfo": 179,
    "brk": 214, "munmap": 215, "mremap": 216, "mmap": 222, "mprotect": 226, "madvise": 233,
    "getrandom": 278, "membarrier": 283, "statx": 291, "rseq": 293, "faccessat2": 439,
}  # fmt: skip
_AARCH64_SPECIAL = {
    "fcntl": 25, "openat": 56, "kill": 129, "tgkill": 131, "prctl": 167, "clone": 220, "prlimit64": 261,
    "clone3": 435,
}  # fmt: skip

MACHINES = {
    "x86_64": Machine(0xC000003E, frozenset(_X86_64.values()), _X86_64_SPECIAL),
    "aarch64": Machine(0xC00000B7, frozenset(_AARCH64.values()), _AARCH64_SPECIAL),
}
"""By `os.uname().machine`."""
NAMES = {"x86_64": {**_X86_64, **_X86_64_SPECIAL}, "aarch64": {**_AARCH64, **_AARCH64_SPECIAL}}
"""All numbers by machine and name; a test compares them with the kernel's headers."""
