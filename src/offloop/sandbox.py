"""What a worker gives up before it runs a job whose input nobody trusts.

The kernel refuses, from then on and for good, to this process and all its children
(seccomp with no_new_privs, which need no rights):

- sockets of any kind, so no network and no talk to other programs of the machine;
- starting another program;
- signals to other processes, and looking into them or changing them;
- mounts, namespaces, kernel modules, keys, io_uring and other ways around all this.

A refused call fails with PermissionError. What is not refused: files. The process reads
and writes whatever its user may. And it is no wall against an attacker who has taken
the process over: its results are unpickled by the parent.

The numbers of the system calls are those of the kernel's tables, one for each
processor: https://github.com/torvalds/linux/tree/master/arch/x86/entry/syscalls and
include/uapi/asm-generic/unistd.h.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_PR_SET_NO_NEW_PRIVS = 38
_SET_MODE_FILTER = 1
_ALL_THREADS = 1

# Classic BPF, as the kernel's filter.h and seccomp.h have it.
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050001  # with EPERM
_NUMBER, _PROCESSOR, _FIRST_ARGUMENT = 0, 4, 16
_X32 = 0x40000000  # calls of a second kind that x86-64 kernels may offer


class _Processor:
    """What the filter must know of one kind of processor."""

    def __init__(
        self, audit: int, seccomp: int, refused: Iterable[int], own: Iterable[int]
    ) -> None:
        #: its name in a filter
        self.audit = audit
        #: number of the call that sets a filter
        self.seccomp = seccomp
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
# name_to_handle_at, open_by_handle_at; personality; shmget, semget, msgget, mq_open
_X86_64 = (
    *(41, 59, 322, 101, 310, 311, 312, 200, 321, 298, 323, 300, 248, 249, 250),
    *(272, 308, 165, 166, 155, 161, 175, 313, 176, 246, 320, 169),
    *(167, 168, 163, 179, 164, 227, 305, 159, 170, 171, 303, 304, 135),
    *(29, 64, 68, 240),
    *(172, 173),  # iopl, ioperm
    *(57, 58),  # fork and vfork, which glibc does not use: clone makes threads too
)
_AARCH64 = (
    *(198, 221, 281, 117, 270, 271, 272, 130, 280, 241, 282, 262, 217, 218, 219),
    *(97, 268, 40, 39, 41, 51, 105, 273, 106, 104, 294, 142),
    *(224, 225, 89, 60, 170, 112, 266, 171, 161, 162, 264, 265, 92),
    *(194, 190, 186, 180),
)

# kill, tgkill, rt_sigqueueinfo, rt_tgsigqueueinfo
_PROCESSORS = {
    "x86_64": _Processor(0xC000003E, 317, _X86_64, (62, 234, 129, 297)),
    "aarch64": _Processor(0xC00000B7, 277, _AARCH64, (129, 131, 138, 240)),
}


def is_possible() -> bool:
    """Tell whether this system has what `enter` needs."""
    return sys.platform == "linux" and os.uname().machine in _PROCESSORS


def enter() -> None:
    """Give all of it up.

    Raises:
        OSError: the kernel does not do that; nothing was given up.
    """
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


def _failed() -> OSError:
    code = ctypes.get_errno()
    return OSError(
        code,
        f"the sandbox cannot be entered ({os.strerror(code)}); the job was not run",
    )


def _filter(processor: _Processor, pid: int) -> bytes:
    """Return the program that judges each system call."""
    # (code, operand, refuse if it holds, refuse if it does not)
    tests: list[tuple[int, int, bool, bool]] = [
        (_LOAD, _PROCESSOR, False, False),
        (_JUMP_EQUAL, processor.audit, False, True),
        (_LOAD, _NUMBER, False, False),
        (_JUMP_AT_LEAST, _X32, True, False),
    ]
    tests += [(_JUMP_EQUAL, number, True, False) for number in processor.refused]
    own = len(processor.own)
    end = len(tests) + own + 3  # where ALLOW stands; REFUSE follows it
    lines = []
    for at, (code, operand, if_so, if_not) in enumerate(tests):
        refuse = end + 1 - (at + 1)
        lines.append((code, refuse * if_so, refuse * if_not, operand))
    for left, number in zip(range(own, 0, -1), processor.own, strict=True):
        lines.append((_JUMP_EQUAL, left, 0, number))  # to the look at the argument
    lines.append((_RETURN, 0, 0, _ALLOW))
    lines.append((_LOAD, 0, 0, _FIRST_ARGUMENT))
    lines.append((_JUMP_EQUAL, 0, 1, pid))
    lines.append((_RETURN, 0, 0, _ALLOW))
    lines.append((_RETURN, 0, 0, _REFUSE))
    assert len(lines) == end + 2
    return b"".join(struct.pack("HBBI", *line) for line in lines)
