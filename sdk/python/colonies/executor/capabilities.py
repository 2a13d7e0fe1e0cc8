"""What this machine offers, as far as the standard library can tell."""

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from colonies.labels import Wanted, accepted, plain_labels
from colonies.registry.v1.registry_service_pb2 import Capabilities

MIB = 1 << 20
_CGROUP = Path("/sys/fs/cgroup")


def offered(
    concurrency: int,
    stated: Capabilities | Mapping[str, Any] | None,
    labels: Mapping[str, str] | None = None,
    accepts: Wanted | None = None,
) -> Capabilities:
    """Processors, memory and platform of this machine, with what the executor's author states instead or in addition.

    Raises:
        ValueError: `stated` has a field that capabilities do not have, or of the wrong type; or a label is no text, or
            `accepts` asks for something that cannot be asked for.
    """
    found = Capabilities(
        cpu=f"{_milli_cpus()}m",
        memory=_memory(),
        processes=concurrency,
        labels={
            "os": platform.system().lower(),
            "arch": platform.machine().lower(),
            "python": platform.python_version(),
        },
    )
    try:
        found.MergeFrom(stated if isinstance(stated, Capabilities) else Capabilities(**(stated or {})))
    except (TypeError, ValueError) as error:
        known = ", ".join(field.name for field in Capabilities.DESCRIPTOR.fields)
        msg = f"these capabilities cannot be used: {error}; the fields are {known}"
        raise ValueError(msg) from error
    found.labels.update(plain_labels(labels or {}, "labels"))
    found.accepts.extend(accepted(accepts or {}, "accepts"))
    return found


def _milli_cpus() -> int:
    """Thousandths of processors that this process may use: its affinity, or its container's quota if that is less."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _read("cpu.max").partition(" ")
    if quota.isdigit() and period.isdigit() and int(period) > 0:
        return max(1, min(cpus * 1000, int(quota) * 1000 // int(period)))
    return cpus * 1000


def _memory() -> str:
    """The machine's memory, or its container's limit if that is less; empty where neither is known."""
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return ""
    limit = _read("memory.max")
    if limit.isdigit():
        size = min(size, int(limit))
    return f"{size // MIB}Mi"


def _read(name: str) -> str:
    try:
        return (_CGROUP / name).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""  # no container limits here
