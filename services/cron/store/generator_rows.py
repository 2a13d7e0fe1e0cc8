"""Rows of generators' tables, in the domain's words and back."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import DictRow

from servicekit.arrays import BigInts, Bools, Bytes, Ints, SmallInts, Texts, Timestamps, Uuids
from services.cron.domain.gathering import Gathering
from services.cron.domain.generator import Batch, Generator, Launchable, Standing
from services.cron.domain.packing import Bin, Reason, Trigger, is_full


def _trigger_of(row: DictRow) -> Trigger:
    return Trigger(row["max_count"], row["timeout_ms"], row["max_bytes"])


def generator_of(row: DictRow) -> Generator:
    """A generator as its members see it."""
    return Generator(
        generator_id=row["id"],
        colony=row["colony"],
        name=row["name"],
        trigger=_trigger_of(row),
        launchable=Launchable(bytes(row["workflow"]), row["nodes"], row["roots"]),
        initiator=row["initiator"],
        initiator_name=row["initiator_name"],
        created=row["created_at"],
        paused=row["paused"],
        pause_reason=row["pause_reason"],
        waiting=row["waiting"],
        waiting_bytes=row["waiting_bytes"],
        bins=row["bins"],
        oldest=row["oldest_at"],
        unsubmitted=row["unsubmitted"],
        submitted=row["submitted"],
        last_workflow_id=row["last_workflow_id"],
        last_error=row["last_error"],
    )


def standing_of(row: DictRow) -> Standing:
    """A row that is locked."""
    return Standing(
        generator_id=row["id"],
        trigger=_trigger_of(row),
        paused=row["paused"],
        blocked=row["blocked"],
        next_sequence=row["next_sequence"],
        next_batch=row["next_batch"],
        waiting=row["waiting"],
        waiting_bytes=row["waiting_bytes"],
        bins=row["bins"],
        unsubmitted=row["unsubmitted"],
        batched=row["batched"],
        batched_bytes=row["batched_bytes"],
        due=row["due_at"],
        claimed_until=row["claimed_until"],
        retry_at=row["retry_at"],
    )


def bin_of(row: DictRow) -> Bin:
    """What waits under a key."""
    return Bin(row["key"], row["count"], row["bytes"], row["first_sequence"], row["last_sequence"], row["oldest_at"])


def batch_of(row: DictRow) -> Batch:
    """A batch."""
    return Batch(
        generator_id=row["generator_id"],
        number=row["number"],
        key=row["key"],
        first=row["first_sequence"],
        last=row["last_sequence"],
        count=row["count"],
        size=row["bytes"],
        reason=Reason(row["reason"]),
        created=row["created_at"],
        oldest=row["oldest_at"],
        submitted=row["submitted_at"],
        error=row["error"],
        tries=row["tries"],
    )


def changes_of(gatherings: Sequence[Gathering], now: datetime) -> Mapping[str, Any]:
    """The parameters that write what has become of locked generators."""
    standings = [gathering.standing for gathering in gatherings]
    return {
        "now": now,
        "generators": Uuids([each.generator_id for each in standings]),
        "next_sequences": BigInts([each.next_sequence for each in standings]),
        "next_batches": BigInts([each.next_batch for each in standings]),
        "waiting": BigInts([each.waiting for each in standings]),
        "waiting_bytes": BigInts([each.waiting_bytes for each in standings]),
        "bin_counts": Ints([each.bins for each in standings]),
        "unsubmitted": BigInts([each.unsubmitted for each in standings]),
        "batched": BigInts([each.batched for each in standings]),
        "batched_bytes": BigInts([each.batched_bytes for each in standings]),
        "due": Timestamps([each.due for each in standings]),
        **_packs(gatherings),
        **_arguments(gatherings),
        **_bins(gatherings),
        **_batches(gatherings),
    }


def _packs(gatherings: Sequence[Gathering]) -> dict[str, Any]:
    packs = [(each.standing.generator_id, pack, first) for each in gatherings for pack, first in each.packs]
    return {
        "pack_generators": Uuids([generator_id for generator_id, _, _ in packs]),
        "pack_requests": Bytes([pack.request for _, pack, _ in packs]),
        "pack_contents": Bytes([pack.content for _, pack, _ in packs]),
        "pack_firsts": BigInts([first for _, _, first in packs]),
    }


def _arguments(gatherings: Sequence[Gathering]) -> dict[str, Any]:
    entered = [each for gathering in gatherings for each in gathering.entered]
    return {
        "argument_generators": Uuids([each.generator_id for each in entered]),
        "argument_keys": Texts([each.argument.key for each in entered]),
        "argument_sequences": BigInts([each.sequence for each in entered]),
        "argument_values": Bytes([each.argument.value for each in entered]),
        "argument_sizes": Ints([each.argument.size for each in entered]),
    }


def _bins(gatherings: Sequence[Gathering]) -> dict[str, Any]:
    gone = [(gathering.standing.generator_id, key) for gathering in gatherings for key in gathering.gone]
    owners: list[UUID] = []
    bins: list[Bin] = []
    full: list[bool] = []
    for gathering in gatherings:
        for bin_ in gathering.changed:
            owners.append(gathering.standing.generator_id)
            bins.append(bin_)
            full.append(is_full(gathering.standing.trigger, bin_))
    return {
        "gone_generators": Uuids([generator_id for generator_id, _ in gone]),
        "gone_keys": Texts([key for _, key in gone]),
        "bin_generators": Uuids(owners),
        "bin_keys": Texts([each.key for each in bins]),
        "bin_sizes": BigInts([each.count for each in bins]),
        "bin_bytes": BigInts([each.size for each in bins]),
        "bin_firsts": BigInts([each.first for each in bins]),
        "bin_lasts": BigInts([each.last for each in bins]),
        "bin_oldest": Timestamps([each.oldest for each in bins]),
        "bin_full": Bools(full),
    }


def _batches(gatherings: Sequence[Gathering]) -> dict[str, Any]:
    batches = [each for gathering in gatherings for each in gathering.batches]
    return {
        "batch_generators": Uuids([each.generator_id for each in batches]),
        "batch_numbers": BigInts([each.number for each in batches]),
        "batch_keys": Texts([each.key for each in batches]),
        "batch_firsts": BigInts([each.first for each in batches]),
        "batch_lasts": BigInts([each.last for each in batches]),
        "batch_counts": Ints([each.count for each in batches]),
        "batch_bytes": BigInts([each.size for each in batches]),
        "batch_reasons": SmallInts([each.reason.value for each in batches]),
        "batch_oldest": Timestamps([each.oldest for each in batches]),
    }
