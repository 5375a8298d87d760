"""What a worker gives up before it runs a job whose input nobody trusts.

The kernel refuses, from then on and for good, to this process and all its children
(seccomp with no_new_privs, which need no rights):

- sockets of any kind, so no network and no talk to other programs of the machine;
- other processes, forked or spawned, and other programs; threads are allowed;
- signals to other processes, and looking into them or changing them;
- mounts, namespaces, kernel modules, keys, io_uring and other ways around all this.

A refused call fails with PermissionError. Limits are lowered for good as well: no core
dump (it would hold what the job was given), no locked memory, `FILES` open files, no
real-time or raised priority.

What is not refused: files. The process reads and writes whatever its user may. And it
is no wall against an attacker who has taken the process over: its results are unpickled
by the parent. Memory and time have limits of their own: `memory_limit`, `run_timeout`.

The numbers of the system calls are those of the kernel's tables, one for each
processor: https://github.com/torvalds/linux/tree/master/arch/x86/entry/syscalls and
include/uapi/asm-generic/unistd.h.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import struct
import sys
import time

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

# Names of ZeroMQ's threads, and seconds that they get to begin in.
_ZMQ_THREADS = {"ZMQbg/Reaper", "ZMQbg/IO/0"}
_THREADS_TIME = 1.0

_PR_SET_NO_NEW_PRIVS = 38
_SET_MODE_FILTER = 1
_ALL_THREADS = 1

# Classic BPF, as the kernel's filter.h and seccomp.h have it.
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_IF_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 6
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050001  # with EPERM
_UNKNOWN = 0x00050026  # with ENOSYS, upon which libraries do it in the older way
_NUMBER, _PROCESSOR, _FIRST_ARGUMENT = 0, 4, 16
_X32 = 0x40000000  # calls of a second kind that x86-64 kernels may offer

# A new thread's flag, for `clone`. What `clone3` is to make cannot be seen from here.
_CLONE_THREAD = 0x00010000
_CLONE3 = 435


class _Processor:
    """What the filter must know of one kind of processor."""

    def __init__(
        self,
        audit: int,
        seccomp: int,
        clone: int,
        limits: int,
        refused: Iterable[int],
        own: Iterable[int],
    ) -> None:
        #: its name in a filter
        self.audit = audit
        #: number of the call that sets a filter
        self.seccomp = seccomp
        #: number of the call that makes threads, and processes
        self.clone = clone
        #: number of the call that limits a process: the own one, or 0 for that
        self.limits = limits
        #: numbers of calls that are refused
        self.refused = sorted({*refused, *_EVERYWHERE})
        #: numbers of calls whose first argument must be the own process
        self.own = sorted(own)


# pidfd_send_signal, io_uring (3), mounts (6), pidfd_getfd, process_madvise,
# mount_setattr
_EVERYWHERE = (424, 425, 426, 427, *range(428, 434), 438, 440, 442)

# In this order: socket; execve, execveat; ptrace, process_vm_readv and _writev, kcmp,
# tkill; bpf, perf_event_open, userfaultfd, fanotify_init; add_key, request_key, keyctl;
# unshare, setns, mount, umount2, pivot_root, chroot; init_module, finit_module,
# delete_module, kexec_load, kexec_file_load, reboot; swapon, swapoff, acct, quotactl;
# settimeofday, clock_settime, clock_adjtime, adjtimex; sethostname, setdomainname;
# name_to_handle_at, open_by_handle_at; personality; shmget, semget, msgget, mq_open;
# setpriority, sched_setparam, _setscheduler and _setattr, ioprio_set, migrate_pages,
# move_pages
_X86_64 = (
    *(41, 59, 322, 101, 310, 311, 312, 200, 321, 298, 323, 300, 248, 249, 250),
    *(272, 308, 165, 166, 155, 161, 175, 313, 176, 246, 320, 169),
    *(167, 168, 163, 179, 164, 227, 305, 159, 170, 171, 303, 304, 135),
    *(29, 64, 68, 240, 141, 142, 144, 314, 251, 256, 279),
    *(172, 173),  # iopl, ioperm
    *(57, 58),  # fork and vfork, which ARM64 does not have
)
_AARCH64 = (
    *(198, 221, 281, 117, 270, 271, 272, 130, 280, 241, 282, 262, 217, 218, 219),
    *(97, 268, 40, 39, 41, 51, 105, 273, 106, 104, 294, 142),
    *(224, 225, 89, 60, 170, 112, 266, 171, 161, 162, 264, 265, 92),
    *(194, 190, 186, 180, 140, 118, 119, 274, 30, 238, 239),
)

# kill, tgkill, rt_sigqueueinfo, rt_tgsigqueueinfo
_PROCESSORS = {
    "x86_64": _Processor(0xC000003E, 317, 56, 302, _X86_64, (62, 234, 129, 297)),
    "aarch64": _Processor(0xC00000B7, 277, 220, 261, _AARCH64, (129, 131, 138, 240)),
}


def is_possible() -> bool:
    """Tell whether this system has what `enter` needs."""
    return sys.platform == "linux" and os.uname().machine in _PROCESSORS


def enter() -> None:
    """Give all of it up.

    Raises:
        OSError: the kernel does not do that; nothing but the limits was given up.
    """
    _wait_threads()
    _lower_limits()
    processor = _PROCESSORS[os.uname().machine]
    program = _filter(processor, os.getpid())
    code = ctypes.create_string_buffer(program, len(program))
    count = len(program) // 8
    header = struct.pack("HxxxxxxP", count, ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise _failed()
    arguments = _SET_MODE_FILTER, _ALL_THREADS, ctypes.c_char_p(header)
    if libc.syscall(processor.seccomp, *arguments) != 0:
        raise _failed()


def _wait_threads() -> None:
    """Wait until ZeroMQ's threads have set their priority, which is refused later.

    They abort the process where they cannot, and begin when the system lets them: the
    one that tidies up perhaps after the first message has come. Each names itself next.
    """
    until = time.monotonic() + _THREADS_TIME
    while time.monotonic() < until:
        names = set()
        for thread in os.listdir("/proc/self/task"):
            with (
                contextlib.suppress(OSError),  # it has just ended
                open(f"/proc/self/task/{thread}/comm") as file,
            ):
                names.add(file.read().strip())
        if names >= _ZMQ_THREADS:
            return
        os.sched_yield()


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
        ("", _JUMP_EQUAL, processor.limits, "limits", ""),
        ("", _JUMP_EQUAL, processor.clone, "clone", ""),
        ("", _JUMP_EQUAL, _CLONE3, "unknown", "allow"),
        ("limits", _LOAD, _FIRST_ARGUMENT, "", ""),
        ("", _JUMP_EQUAL, 0, "allow", "own"),
        ("own", _LOAD, _FIRST_ARGUMENT, "", ""),
        ("", _JUMP_EQUAL, pid, "allow", "refuse"),
        ("clone", _LOAD, _FIRST_ARGUMENT, "", ""),
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
