"""A seccomp filter that restricts the system calls of a decoder's child process.

The descriptor limit alone wouldn't stop code that takes over the decoder: it could close a pipe to free a descriptor.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
from typing import NamedTuple

_PR_SET_SECCOMP, _MODE_FILTER = 22, 2

_LOAD, _EQUALS, _RETURN = 0x20, 0x15, 0x06
"""Classic BPF instructions: BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K."""

_KILL, _ALLOW, _REFUSE = 0x80000000, 0x7FFF0000, 0x00050000 | errno.EPERM

_AT_NUMBER, _AT_MACHINE, _AT_FIRST_ARGUMENT = 0, 4, 16
"""Offsets in `struct seccomp_data`; for the argument, its lower half, since both machines are little-endian."""


class _Machine(NamedTuple):
    audit: int
    """AUDIT_ARCH_* of linux/audit.h."""
    calls: tuple[int, ...]
    prlimit: int


_MACHINES = {
    "x86_64": _Machine(
        0xC000003E,
        (
            *(0, 1, 3, 5, 8, 19, 20),  # read, write, close, fstat, lseek, readv, writev
            *(9, 10, 11, 12, 25, 28),  # mmap, mprotect, munmap, brk, mremap, madvise
            *(13, 14, 15, 131, 219),  # rt_sigaction, rt_sigprocmask, rt_sigreturn, sigaltstack, restart_syscall
            *(24, 98, 99, 202, 204, 228),  # sched_yield, getrusage, sysinfo, futex, sched_getaffinity, clock_gettime
            *(39, 60, 186, 231),  # getpid, exit, gettid, exit_group
            *(273, 318, 324, 334),  # set_robust_list, getrandom, membarrier, rseq
        ),
        302,
    ),
    "aarch64": _Machine(
        0xC00000B7,
        (
            *(57, 62, 63, 64, 65, 66, 80),  # close, lseek, read, write, readv, writev, fstat
            *(214, 215, 216, 222, 226, 233),  # brk, munmap, mremap, mmap, mprotect, madvise
            *(128, 132, 134, 135, 139),  # restart_syscall, sigaltstack, rt_sigaction, rt_sigprocmask, rt_sigreturn
            *(98, 113, 123, 124, 165, 179),  # futex, clock_gettime, sched_getaffinity, sched_yield, getrusage, sysinfo
            *(93, 94, 172, 178),  # exit, exit_group, getpid, gettid
            *(99, 278, 283, 293),  # set_robust_list, getrandom, membarrier, rseq
        ),
        261,
    ),
}
"""Allowed calls, by the numbers in the kernel's unistd.h: memory, time, the two open pipes, and exit."""


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def install_filter() -> bool:
    """Make all other system calls of this thread fail with EPERM. Requires `no_new_privs`.

    Returns False if the machine or the kernel doesn't support it; the resource limits apply regardless.
    """
    machine = _MACHINES.get(platform.machine())
    if machine is None:
        return False
    code = _code(machine)
    program = _Program(len(code) // 8, code)
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    return bool(prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0) == 0)


def _code(machine: _Machine) -> bytes:
    """The filter: kill on another architecture's calls; allow the listed ones, and prlimit on itself; deny the rest."""
    steps = [(_LOAD, 0, 0, _AT_MACHINE), (_EQUALS, 1, 0, machine.audit), (_RETURN, 0, 0, _KILL)]
    steps.append((_LOAD, 0, 0, _AT_NUMBER))
    for number in machine.calls:
        steps += [(_EQUALS, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    steps += [
        (_EQUALS, 0, 3, machine.prlimit),
        (_LOAD, 0, 0, _AT_FIRST_ARGUMENT),
        (_EQUALS, 0, 1, 0),  # pid 0: the calling process
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    ]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)
