"""Take all rights from this process that a function over rows does not need; there is no way back.

    what                        how
    environment, descriptors    the parent passes none
    files                       Landlock: reading of the libraries alone; no call that creates or changes one
    sockets, processes          seccomp: these calls do not exist; threads do
    other processes             seccomp: signals reach this process alone; no ptrace, no /proc
    memory, CPU seconds         setrlimit
    the parent ends             the process is killed

Landlock: Documentation/userspace-api/landlock.rst of Linux; seccomp: seccomp(2), and for the filter's
language McCanne, Jacobson: "The BSD Packet Filter", USENIX 1993. A machine without them runs no functions.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import struct
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

from elytra.functions.syscalls import MACHINES, Machine
from sennit_core.errors import Unsupported

__all__ = ["confine", "why_not"]

_FILES_MAX = 64
_CPU_SECONDS_MORE = 30
"""The parent ends the process by the wall clock; this limit is for a parent that hangs."""
_SYSTEM_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib")
_SYSTEM_FILES = (
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/usr/share/zoneinfo",
    "/dev/null",
    "/dev/urandom",
)

# linux/landlock.h; the numbers of its calls are the same on all machines.
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_LANDLOCK_VERSION = 1
_LANDLOCK_PATH = 1
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
# Kinds of access by the first version that knows them: those of files, of TCP, of signals and sockets.
_FILE_ACCESS = ((1, 13), (2, 14), (3, 15), (5, 16))
_NET_ACCESS_VERSION, _NET_ACCESS = 4, 0b11
_SCOPES_VERSION, _SCOPES = 6, 0b11

# linux/prctl.h
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NAME = 1, 4, 15
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 22, 38
_SECCOMP_MODE_FILTER = 2
_CLONE_THREAD = 0x10000
_FCNTL_MAX = 5
"""Commands below this: of flags and duplicates. F_SETOWN would let others be sent signals."""

# linux/seccomp.h and linux/bpf_common.h
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_LOAD, _RETURN = 0x20, 0x06
_JUMP_EQUAL, _JUMP_NOT_BELOW, _JUMP_ANY_BIT = 0x15, 0x35, 0x45
_NUMBER_AT, _ARCH_AT = 0, 4
_ARGUMENT_AT = (16, 24, 32)
"""Offsets of the low halves of the first arguments; both machines are little-endian."""


def why_not() -> str | None:
    """Return why this machine cannot confine a process; None if it can."""
    if not sys.platform.startswith("linux") or os.uname().machine not in MACHINES:
        return f"{sys.platform} on {os.uname().machine} is not Linux on x86-64 or aarch64"
    if _landlock_version() < 1:
        return "this kernel has no Landlock (Linux 5.13 and later, and not disabled at its start)"
    return None


def confine(memory_bytes: int, cpu_seconds: float, parent: int) -> None:
    """Confine this process, which must have loaded its libraries, and have no other thread.

    Args:
        memory_bytes: What it may allocate in addition to what it has.
        cpu_seconds: CPU time of all of its threads together.
        parent: The process with which it ends.

    Raises:
        Unsupported: The machine cannot do it. Nothing of the function may run then.
    """
    reason = why_not()
    if reason is not None:
        raise Unsupported(f"a Python function cannot be confined: {reason}")
    # Landlock and the filter hold for the calling thread and its children alone, and a function can write
    # to the memory of any other.
    if len(list(Path("/proc/self/task").iterdir())) != 1:
        raise Unsupported("a Python function cannot be confined: its process has several threads")
    libc = ctypes.CDLL(None, use_errno=True)
    _prctl(libc, _PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the call above
        os._exit(1)
    _prctl(libc, _PR_SET_DUMPABLE, 0)
    _prctl(libc, _PR_SET_NO_NEW_PRIVS, 1)
    _drop_capabilities(libc)
    _limit(memory_bytes, cpu_seconds)
    _landlock(libc, _readable())
    _seccomp(libc, MACHINES[os.uname().machine])


def _limit(memory_bytes: int, cpu_seconds: float) -> None:
    # Of addresses, not of pages: shared anonymous memory counts in no other limit. What is mapped by now,
    # libraries and reservations of allocators, is not the function's.
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + memory_bytes
    seconds = int(cpu_seconds) + _CPU_SECONDS_MORE
    for kind, value in (
        (resource.RLIMIT_AS, most),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, _FILES_MAX),
    ):
        resource.setrlimit(kind, (value, value))


def _readable() -> list[str]:
    """Return the folders and files that Python and its libraries are loaded from."""
    paths = sysconfig.get_paths()
    kinds = ("stdlib", "platstdlib", "purelib", "platlib")
    found = [*sys.path, *(paths[kind] for kind in kinds), str(Path(sys.base_prefix) / "lib")]
    wanted = [*found, *_SYSTEM_LIBRARIES, *_SYSTEM_FILES]
    # A relative entry of sys.path means the current folder, which may be any.
    return list(dict.fromkeys(path for path in wanted if Path(path).is_absolute()))


def _landlock_version() -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    return int(libc.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), _LANDLOCK_VERSION))


def _landlock(libc: ctypes.CDLL, readable: Iterable[str]) -> None:
    version = _landlock_version()
    handled = max((1 << bits) - 1 for since, bits in _FILE_ACCESS if since <= version)
    members = [handled]
    if version >= _NET_ACCESS_VERSION:
        members.append(_NET_ACCESS)
    if version >= _SCOPES_VERSION:
        members.append(_SCOPES)
    rules = struct.pack(f"={len(members)}Q", *members)
    ruleset = _call(libc, _LANDLOCK_CREATE, rules, ctypes.c_size_t(len(rules)), 0)
    for path in readable:
        try:
            file = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue  # not on this machine
        allowed = _READ_FILE | (_READ_DIR if Path(path).is_dir() else 0)
        # struct landlock_path_beneath_attr is packed.
        _call(libc, _LANDLOCK_ADD, ruleset, _LANDLOCK_PATH, struct.pack("=Qi", allowed, file), 0)
        os.close(file)
    _call(libc, _LANDLOCK_RESTRICT, ruleset, 0)
    os.close(ruleset)


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    """Drop all capabilities: those of a node that runs as root, in a container for example."""
    header = struct.pack("=Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this thread
    if libc.capset(header, bytes(24)) != 0:
        raise _failed("capset")


def _seccomp(libc: ctypes.CDLL, machine: Machine) -> None:
    code = b"".join(_filter(machine, os.getpid()))
    buffer = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: the count of instructions, and a pointer at its alignment.
    program = struct.pack("=H6xQ", len(code) // 8, ctypes.addressof(buffer))
    _prctl(libc, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, program)


def _filter(machine: Machine, pid: int) -> list[bytes]:
    """Return the instructions of the filter: what is not allowed fails with EPERM."""
    special = machine.special
    denied, absent = _ERRNO | errno.EPERM, _ERRNO | errno.ENOSYS
    writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
    code = [
        _step(_LOAD, _ARCH_AT),
        _step(_JUMP_EQUAL, machine.audit_arch, 1, 0),
        _step(_RETURN, _KILL),
        _step(_LOAD, _NUMBER_AT),
    ]
    for number in sorted(machine.plain):
        code += [_step(_JUMP_EQUAL, number, 0, 1), _step(_RETURN, _ALLOW)]
    # The C library falls back to clone, whose flags a filter can read.
    code += [_step(_JUMP_EQUAL, special["clone3"], 0, 1), _step(_RETURN, absent)]
    for name, argument, jump, value, if_true, if_false in (
        ("clone", 0, _JUMP_ANY_BIT, _CLONE_THREAD, _ALLOW, denied),
        ("open", 1, _JUMP_ANY_BIT, writes, denied, _ALLOW),
        ("openat", 2, _JUMP_ANY_BIT, writes, denied, _ALLOW),
        ("fcntl", 1, _JUMP_NOT_BELOW, _FCNTL_MAX, denied, _ALLOW),
        ("kill", 0, _JUMP_EQUAL, pid, _ALLOW, denied),
        ("tgkill", 0, _JUMP_EQUAL, pid, _ALLOW, denied),
        ("prlimit64", 0, _JUMP_EQUAL, 0, _ALLOW, denied),
        ("prctl", 0, _JUMP_EQUAL, _PR_SET_NAME, _ALLOW, denied),
    ):
        if name not in special:
            continue
        code += [
            _step(_JUMP_EQUAL, special[name], 0, 4),
            _step(_LOAD, _ARGUMENT_AT[argument]),
            _step(jump, value, 0, 1),
            _step(_RETURN, if_true),
            _step(_RETURN, if_false),
        ]
    return [*code, _step(_RETURN, denied)]


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _prctl(libc: ctypes.CDLL, option: int, *arguments: int | bytes) -> None:
    words = [each if isinstance(each, bytes) else ctypes.c_ulong(each) for each in arguments]
    words += [ctypes.c_ulong(0)] * (4 - len(words))
    if libc.prctl(ctypes.c_int(option), *words) != 0:
        raise _failed(f"prctl {option}")


def _call(libc: ctypes.CDLL, number: int, *arguments: object) -> int:
    found = int(libc.syscall(number, *arguments))
    if found < 0:
        raise _failed(f"system call {number}")
    return found


def _failed(what: str) -> Unsupported:
    reason = os.strerror(ctypes.get_errno())
    return Unsupported(f"a Python function cannot be confined: {what} failed ({reason})")
