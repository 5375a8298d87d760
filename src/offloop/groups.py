"""Which control groups a process is in: what limits its processor time and memory.

It imports nothing heavy: workers ask as well as the parent.
"""

from __future__ import annotations

import os

#: where control groups are mounted, and what names those of this process
ROOT = "/sys/fs/cgroup"
MEMBERSHIP = "/proc/self/cgroup"


def own_groups(root: str, membership: str, controller: str) -> list[str]:
    """Return the folders of the process's group and of all groups above it.

    The root comes first, and the own group last. A quota further up binds as well. In a
    container the path may be the host's and not exist below `root`; the root itself
    then is the container's own group.

    Args:
        root: where the control groups are mounted.
        membership: the file that names this process's own groups.
        controller: "cpu" or "memory".
    """
    try:
        with open(membership) as file:
            lines = file.read().splitlines()
    except OSError:
        lines = []
    folders = [root, os.path.join(root, controller)]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            folder = root
        elif controller in controllers.split(","):
            folder = os.path.join(root, controller)
        else:
            continue
        folders.append(folder)
        for name in path.split("/"):
            if name:
                folder = os.path.join(folder, name)
                folders.append(folder)
    return folders
