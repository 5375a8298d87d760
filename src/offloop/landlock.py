"""Keeps a process from looking into others by way of ``/proc``: the kernel's Landlock.

There, the memory of another process is a file, and so are its environment and what it
has open; a filter of system calls sees an `open` like any other. A process with
Landlock may not look into one that has it not, whatever the file's rights are. It needs
no rights itself, and cannot get rid of it.

Landlock is made to restrict files. Here it restricts none: all that may be refused is
allowed for all files there are.

https://docs.kernel.org/userspace-api/landlock.html
"""

from __future__ import annotations

import ctypes
import os
import struct

# Numbers that are the same for all processors.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_GIVE_VERSION = 1
_PATH_BENEATH = 1

# A ruleset must be about something. Moving to another directory is what it is about in
# any case, from the second version on; the first one cannot allow it.
_MAKE_BLOCK_DEVICE = 1 << 11
_MOVE = 1 << 13
_FIRST_WITH_MOVE = 2


def version() -> int:
    """Return which version of Landlock this kernel has; 0 for none."""
    if os.uname().sysname != "Linux":
        return 0
    found: int = _libc().syscall(_CREATE_RULESET, None, 0, _GIVE_VERSION)
    return max(found, 0)


def keep_out_of_others() -> None:
    """Let this thread, and all that it starts, look into no process without Landlock.

    Does nothing where the kernel has no Landlock. Needs `no_new_privs`. With its first
    version (Linux 5.13 to 5.18) files can no longer be moved to other directories.

    Raises:
        OSError: the kernel has it, and refuses it.
    """
    found = version()
    if not found:
        return
    libc = _libc()
    about = _MOVE if found >= _FIRST_WITH_MOVE else _MAKE_BLOCK_DEVICE
    wanted = struct.pack("=Q", about)
    rules = _checked(libc.syscall(_CREATE_RULESET, wanted, len(wanted), 0))
    try:
        if about == _MOVE:
            root = os.open("/", os.O_PATH | os.O_CLOEXEC)
            try:
                everywhere = struct.pack("=Qi", about, root)
                _checked(libc.syscall(_ADD_RULE, rules, _PATH_BENEATH, everywhere, 0))
            finally:
                os.close(root)
        _checked(libc.syscall(_RESTRICT_SELF, rules, 0))
    finally:
        os.close(rules)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        why = os.strerror(code)
        raise OSError(code, f"Landlock cannot be had ({why}); the job was not run")
    return result
