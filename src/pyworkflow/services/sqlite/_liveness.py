"""Whether the process of an owner is alive.

A process is identified by its machine's boot, its namespace of process ids (a container has its
own), its id in there and its start time: ids are reused. If one of these can't be read, the process
is not known to be alive. (Forks of *this* process are the concern of `services.processes`.)
"""

from __future__ import annotations

import os
import socket
from functools import cache
from pathlib import Path

_PROC = Path("/proc")
_STATE, _START = 0, 19
"""Fields of /proc/PID/stat, counted after the name (proc(5): 3 and 22)."""
_DEAD = {"Z", "X"}


def this_host() -> str:
    """Return an identifier of this boot of this machine, and of this container on it."""
    try:
        processes = os.readlink("/proc/self/ns/pid")
    except OSError:  # not Linux: one namespace of process ids per machine
        processes = ""
    return f"{_boot()} {processes}"


@cache
def _boot() -> str:
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return socket.gethostname()


def is_gone(pid: int) -> bool:
    """Return whether no process of this machine has the id ``pid``."""
    if os.name != "posix":  # elsewhere os.kill would end it
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # it exists and belongs to another user
        return False
    return False


def start_of(pid: int) -> int | None:
    """Return the start time of a live process of this container, in ticks since the boot.

    Return `None` for a process that has ended, zombies included, and when it can't be read.
    """
    try:
        stat = (_PROC / str(pid) / "stat").read_text("utf-8", "replace")
        fields = stat.rpartition(")")[2].split()  # the name before it may hold anything
        return None if fields[_STATE] in _DEAD else int(fields[_START])
    except (OSError, ValueError, IndexError):
        return None
