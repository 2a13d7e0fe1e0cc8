"""The audit file after all of it: whatever died or hung, what is kept proves itself."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from colonies.audit.verify import verify
from colonies.client import AsyncClient
from colonies.keys import PrivateKey

TRUSTED = ("colony-owner", "service-scheduler")


async def flaws(client: AsyncClient, keys: Path, file: Path) -> tuple[list[str], Mapping[str, int]]:
    """Exports a whole colony; returns what is wrong with the file or not proven by it, and how much is in it.

    Args:
        client: a member that may export.
        keys: the folder with the stack's keys.
        file: where to write it.
    """
    with file.open("wb") as output:
        async for lines in client.export_audit():
            output.write(lines)
    trusted = frozenset(PrivateKey.load(keys / f"{name}.key").identity for name in TRUSTED)

    def check() -> tuple[list[str], Mapping[str, int]]:
        with file.open("rb") as exported:
            report = verify(exported, trusted)
        return [str(one) for one in (*report.findings, *report.warnings)], report.counts

    return await asyncio.to_thread(check)
