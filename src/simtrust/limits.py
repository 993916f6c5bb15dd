"""What this process may use of the machine: cores and memory, as its control groups allow.

A container sees the whole machine's cores and memory, and is killed when it takes more than its share.
Both versions of Linux's control groups are read (``man 7 cgroups``); elsewhere nothing is limited.
"""

import os
from pathlib import Path
from typing import NamedTuple

import psutil

CGROUPS = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
UNLIMITED = 2**60
"""Version 1 writes "no limit" as the largest number of whole pages."""


class _MemoryFiles(NamedTuple):
    """How one version of control groups names its files, and the page cache that it gives back first."""

    limit: str
    used: str
    cache: str


VERSION_1 = _MemoryFiles("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
VERSION_2 = _MemoryFiles("memory.max", "memory.current", "inactive_file")


def usable_processors() -> int:
    """Those that the operating system lets this process run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_limit(root: Path = CGROUPS, own: Path = OWN) -> float | None:
    """Cores that the control group allows at once, the least of it and its parents; None if unlimited."""
    limits = []
    for group in _groups("", root, own):
        quota, period = (_text(group / "cpu.max") or "max 1").split()
        if quota != "max":
            limits.append(int(quota) / int(period))
    for group in _groups("cpu", root / "cpu", own):
        quota, period = (_number(group / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
        if quota is not None and period and quota > 0:
            limits.append(quota / period)
    return min(limits, default=None)


def memory_limit(root: Path = CGROUPS, own: Path = OWN) -> int | None:
    """Bytes that the control group allows, the least of it and its parents; None if unlimited."""
    return min((limit for _, _, limit in _memory_limits(root, own)), default=None)


def available_memory(root: Path = CGROUPS, own: Path = OWN) -> int:
    """Bytes that may still be taken: of the machine's, and of every control group's that this process is in.

    What a group holds as page cache and has not read for a while counts as free, as the kernel takes it back
    before it kills anyone.
    """
    free = [psutil.virtual_memory().available]
    for group, files, limit in _memory_limits(root, own):
        free.append(limit - max((_number(group / files.used) or 0) - _cache(group, files), 0))
    return max(min(free), 0)


def _memory_limits(root: Path, own: Path) -> list[tuple[Path, _MemoryFiles, int]]:
    groups = [(group, VERSION_2) for group in _groups("", root, own)]
    groups += [(group, VERSION_1) for group in _groups("memory", root / "memory", own)]
    found = [(group, files, _number(group / files.limit)) for group, files in groups]
    return [(group, files, limit) for group, files, limit in found if limit is not None and limit < UNLIMITED]


def _cache(group: Path, files: _MemoryFiles) -> int:
    pairs = (line.split() for line in (_text(group / "memory.stat") or "").splitlines())
    return next((int(pair[1]) for pair in pairs if pair[:1] == [files.cache]), 0)


def _groups(controller: str, root: Path, own: Path) -> list[Path]:
    """This process's control group and its parents, up to ``root``; ``controller`` is empty for version 2."""
    places = {}
    for line in (_text(own) or "").splitlines():
        _, controllers, place = line.split(":", 2)
        places |= dict.fromkeys(controllers.split(","), place.lstrip("/"))
    # In a container the place may be the host's, which is not mounted; the root is the container's own then.
    group = root / places.get(controller, "")
    return [folder for folder in (group, *group.parents) if folder.is_relative_to(root)]


def _number(path: Path) -> int | None:
    """The whole number that a file holds; None if it holds another thing, as ``max``, or is not there."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None
