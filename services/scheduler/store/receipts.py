"""Signed calls as they are kept beside what they asked for, in the same transaction."""

from collections.abc import Sequence
from typing import Any

from servicekit.arrays import BigInts, Bytes, Texts
from servicekit.postgres import Connection
from services.scheduler.domain.records import Receipt
from services.scheduler.store.sql import WRITES as SQL


def columns_of(receipts: Sequence[Receipt | None]) -> dict[str, Any]:
    """Receipts of several calls, as parameters; those that are not kept are NULL."""
    return {
        "receipts": Bytes([None if one is None else one.digest for one in receipts]),
        "methods": Texts([None if one is None else one.method for one in receipts]),
        "public_keys": Bytes([None if one is None else one.public_key for one in receipts]),
        "signed_ms": BigInts([None if one is None else one.time_ms for one in receipts]),
        "nonces": Bytes([None if one is None else one.nonce for one in receipts]),
        "signatures": Bytes([None if one is None else one.signature for one in receipts]),
        "bodies": Bytes([None if one is None else one.body for one in receipts]),
    }


def digest_of(receipt: Receipt | None) -> bytes | None:
    """What ledger lines name it by."""
    return None if receipt is None else receipt.digest


async def keep(connection: Connection, colony: str, receipt: Receipt | None, uses: int) -> None:
    """Keeps a call that so many ledger lines of this transaction name, if any."""
    if receipt is None or not uses:
        return
    parameters = {
        "colony": colony,
        "digest": receipt.digest,
        "method": receipt.method,
        "public_key": receipt.public_key,
        "time_ms": receipt.time_ms,
        "nonce": receipt.nonce,
        "signature": receipt.signature,
        "body": receipt.body,
        "uses": uses,
    }
    await connection.execute(SQL["keep_receipt"], parameters)
