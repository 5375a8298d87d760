"""What a worker gives up before it runs a job whose input nobody trusts.

The kernel refuses, from then on and for good, to this process and all its children
(seccomp with no_new_privs, which need no rights):

- sockets of any kind, so no network and no talk to other programs of the machine; only
  pairs of connected ones, which asyncio needs, and which lead nowhere else;
- memory, semaphores and queues of System V, and queues of POSIX, which others may use;
- other processes, forked or spawned, and other programs; threads are allowed;
- signals to other processes, also by way of a file that tells its owner; input into a
  terminal in the user's place;
- looking into other processes, and changing them or their limits and priorities;
- mounts, namespaces, kernel modules, keys, io_uring and other ways around all this.

A refused call fails with PermissionError. Limits are lowered for good as well: no core
dump (it would hold what the job was given), no locked memory, `FILES` open files, no
real-time or raised priority.

Files in ``/proc`` are a way to look into others too: that one is closed by `landlock`,
where the kernel has it.

What is not refused: files. The process reads and writes whatever its user may. And it
is no wall against an attacker who has taken the process over: its results are unpickled
by the parent. Memory and time have limits of their own: `memory_limit`, `run_timeout`.

Threads of ZeroMQ must have begun before: each sets its priority first thing, and aborts
the process where it may not (`Channel.settled`).

The numbers of the system calls are those of the kernel's tables, one for each
processor: https://github.com/torvalds/linux/tree/master/arch/x86/entry/syscalls and
include/uapi/asm-generic/unistd.h.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
import sys

from offloop import landlock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

#: descriptors that a job in here may have at most
FILES = 256

_LIMITS = {
    "RLIMIT_CORE": 0,
    "RLIMIT_MEMLOCK": 0,
    "RLIMIT_MSGQUEUE": 0,
    "RLIMIT_NICE": 0,
    "RLIMIT_RTPRIO": 0,
    "RLIMIT_NOFILE": FILES,
}

_PR_SET_NO_NEW_PRIVS = 38
_SET_MODE_FILTER = 1
_ALL_THREADS = 1

# Classic BPF, as the kernel's filter.h and seccomp.h have it.
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_IF_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 6
_AND = 0x54
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050001  # with EPERM
_UNKNOWN = 0x00050026  # with ENOSYS, upon which libraries do it in the older way
_NUMBER, _PROCESSOR, _FIRST, _SECOND = 0, 4, 16, 24
_X32 = 0x40000000  # calls of a second kind that x86-64 kernels may offer

# A new thread's flag, for `clone`. What `clone3` is to make cannot be seen from here.
_CLONE_THREAD = 0x00010000
_CLONE3 = 435


# A pair of sockets whose ends cannot be turned to anybody else: AF_UNIX, SOCK_STREAM. A
# datagram's end could, to the system's log for example.
_PAIR_FAMILY, _PAIR_KIND, _KIND_BITS = 1, 1, 0xF

# What makes a descriptor signal whom it is told to: F_SETOWN, F_SETOWN_EX; FIOSETOWN
# and SIOCSPGRP of sockets. And what types into a terminal: TIOCSTI, TIOCLINUX.
_FCNTL_REFUSED = (8, 15)
_IOCTL_REFUSED = (0x8901, 0x8902, 0x5412, 0x541C)


class _Processor:
    """What the filter must know of one kind of processor.

    Args:
        audit: its name in a filter.
        calls: numbers of the calls that set a filter, make threads (and processes),
            make a pair of sockets, and that do anything with a descriptor: seccomp,
            clone, socketpair, fcntl, ioctl.
        refused: numbers of calls that are refused.
        own: of those whose first argument must be the own process.
        own_or_zero: of those where it may also be 0, which means the same.
    """

    def __init__(
        self,
        audit: int,
        calls: tuple[int, int, int, int, int],
        refused: Iterable[int],
        own: Iterable[int],
        own_or_zero: Iterable[int],
    ) -> None:
        self.audit = audit
        self.seccomp, self.clone, self.pair, self.fcntl, self.ioctl = calls
        self.refused = sorted({*refused, *_EVERYWHERE})
        self.own = sorted(own)
        self.own_or_zero = sorted(own_or_zero)


# pidfd_send_signal, io_uring (3), mounts (6), pidfd_getfd, process_madvise,
# mount_setattr, quotactl_fd, open_tree_attr
_EVERYWHERE = (424, 425, 426, 427, *range(428, 434), 438, 440, 442, 443, 467)

# In this order: socket, connect, bind; execve, execveat; ptrace, process_vm_readv and
# _writev, kcmp, tkill; bpf, perf_event_open, userfaultfd, fanotify_init; add_key,
# request_key, keyctl; unshare, setns, mount, umount2, pivot_root, chroot; init_module,
# finit_module, delete_module, kexec_load, kexec_file_load, reboot; swapon, swapoff,
# acct, quotactl; settimeofday, clock_settime, clock_adjtime, adjtimex; sethostname,
# setdomainname; name_to_handle_at, open_by_handle_at; personality; mq_open, shared
# memory, semaphores and queues of System V; setpriority, sched_setparam,
# _setscheduler and _setattr, ioprio_set, migrate_pages, move_pages
_X86_64 = (
    *(41, 42, 49, 59, 322, 101, 310, 311, 312, 200, 321, 298, 323, 300, 248, 249, 250),
    *(272, 308, 165, 166, 155, 161, 175, 313, 176, 246, 320, 169),
    *(167, 168, 163, 179, 164, 227, 305, 159, 170, 171, 303, 304, 135),
    *(240, 29, 30, 31, 64, 65, 66, 220, 68, 69, 70, 71),
    *(141, 142, 144, 314, 251, 256, 279),
    *(172, 173),  # iopl, ioperm
    *(57, 58),  # fork and vfork, which ARM64 does not have
)
_AARCH64 = (
    *(198, 203, 200, 221, 281, 117, 270, 271, 272, 130, 280, 241, 282, 262),
    *(217, 218, 219, 97, 268, 40, 39, 41, 51, 105, 273, 106, 104, 294, 142),
    *(224, 225, 89, 60, 170, 112, 266, 171, 161, 162, 264, 265, 92),
    *(180, *range(186, 197), 140, 118, 119, 274, 30, 238, 239),
)

# Own: kill, tgkill, rt_sigqueueinfo, rt_tgsigqueueinfo. Own or zero: prlimit64,
# sched_setaffinity.
_PROCESSORS = {
    "x86_64": _Processor(
        0xC000003E, (317, 56, 53, 72, 16), _X86_64, (62, 234, 129, 297), (302, 203)
    ),
    "aarch64": _Processor(
        0xC00000B7, (277, 220, 199, 25, 29), _AARCH64, (129, 131, 138, 240), (261, 122)
    ),
}


def is_possible() -> bool:
    """Tell whether this system has what `enter` needs."""
    return sys.platform == "linux" and os.uname().machine in _PROCESSORS


def enter() -> None:
    """Give all of it up.

    Raises:
        OSError: the kernel does not do that, so no job may run; some may be given up.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise _failed()
    landlock.keep_out_of_others()
    _lower_limits()
    processor = _PROCESSORS[os.uname().machine]
    program = _filter(processor, os.getpid())
    code = ctypes.create_string_buffer(program, len(program))
    count = len(program) // 8
    header = struct.pack("HxxxxxxP", count, ctypes.addressof(code))
    arguments = _SET_MODE_FILTER, _ALL_THREADS, ctypes.c_char_p(header)
    if libc.syscall(processor.seccomp, *arguments) != 0:
        raise _failed()


def _failed() -> OSError:
    code = ctypes.get_errno()
    return OSError(
        code,
        f"the sandbox cannot be entered ({os.strerror(code)}); the job was not run",
    )


def _lower_limits() -> None:
    for name, most in _LIMITS.items():
        kind = getattr(resource, name)
        lower = [
            most if limit == resource.RLIM_INFINITY else min(limit, most)
            for limit in resource.getrlimit(kind)
        ]
        resource.setrlimit(kind, (lower[0], lower[1]))


def _filter(processor: _Processor, pid: int) -> bytes:
    """Return the program that judges each system call."""
    # (its name, code, operand, whereto if it holds, and if not); "": the next line
    lines: list[tuple[str, int, int, str, str]] = [
        ("", _LOAD, _PROCESSOR, "", ""),
        ("", _JUMP_EQUAL, processor.audit, "", "refuse"),
        ("", _LOAD, _NUMBER, "", ""),
        ("", _JUMP_AT_LEAST, _X32, "refuse", ""),
        *(("", _JUMP_EQUAL, number, "refuse", "") for number in processor.refused),
        *(("", _JUMP_EQUAL, number, "own", "") for number in processor.own),
        *(("", _JUMP_EQUAL, number, "zero", "") for number in processor.own_or_zero),
        ("", _JUMP_EQUAL, processor.pair, "pair", ""),
        ("", _JUMP_EQUAL, processor.fcntl, "fcntl", ""),
        ("", _JUMP_EQUAL, processor.ioctl, "ioctl", ""),
        ("", _JUMP_EQUAL, processor.clone, "clone", ""),
        ("", _JUMP_EQUAL, _CLONE3, "unknown", "allow"),
        ("zero", _LOAD, _FIRST, "", ""),
        ("", _JUMP_EQUAL, 0, "allow", "own"),
        ("own", _LOAD, _FIRST, "", ""),
        ("", _JUMP_EQUAL, pid, "allow", "refuse"),
        ("pair", _LOAD, _FIRST, "", ""),
        ("", _JUMP_EQUAL, _PAIR_FAMILY, "", "refuse"),
        ("", _LOAD, _SECOND, "", ""),
        ("", _AND, _KIND_BITS, "", ""),
        ("", _JUMP_EQUAL, _PAIR_KIND, "allow", "refuse"),
        ("fcntl", _LOAD, _SECOND, "", ""),
        *(("", _JUMP_EQUAL, what, "refuse", "") for what in _FCNTL_REFUSED),
        ("", _RETURN, _ALLOW, "", ""),
        ("ioctl", _LOAD, _SECOND, "", ""),
        *(("", _JUMP_EQUAL, what, "refuse", "") for what in _IOCTL_REFUSED),
        ("", _RETURN, _ALLOW, "", ""),
        ("clone", _LOAD, _FIRST, "", ""),
        ("", _JUMP_IF_BIT, _CLONE_THREAD, "allow", "refuse"),
        ("unknown", _RETURN, _UNKNOWN, "", ""),
        ("refuse", _RETURN, _REFUSE, "", ""),
        ("allow", _RETURN, _ALLOW, "", ""),
    ]
    places = {name: at for at, (name, *_) in enumerate(lines)}

    def way(at: int, name: str) -> int:
        return places[name] - at - 1 if name else 0

    return b"".join(
        struct.pack("HBBI", code, way(at, yes), way(at, no), operand)
        for at, (_, code, operand, yes, no) in enumerate(lines)
    )
