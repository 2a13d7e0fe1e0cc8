"""The audit file after all of it: whatever died or hung, what is kept proves itself."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from colonies.audit.trust import Trust
from colonies.audit.verify import verify
from colonies.client import AsyncClient
from colonies.keys import PrivateKey


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
    sealers, owners = (
        frozenset({PrivateKey.load(keys / f"{name}.key").identity}) for name in ("service-scheduler", "colony-owner")
    )

    def check() -> tuple[list[str], Mapping[str, int]]:
        with file.open("rb") as exported:
            report = verify(exported, Trust(sealers, owners))
        return [str(one) for one in (*report.findings, *report.warnings)], report.counts

    return await asyncio.to_thread(check)
