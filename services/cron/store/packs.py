"""Arguments on their way into generators, in Postgres."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final
from uuid import UUID

from servicekit.arrays import Bytes, Texts, Uuids
from servicekit.failures import AlreadyExists, InvalidArgument, NotFound, ResourceExhausted
from servicekit.postgres import Connection, Database, Queries
from services.cron.domain.gathering import Gathering, Known
from services.cron.domain.generator import Pack, Room, Standing
from services.cron.domain.generator_ports import Flushed, FlushFrom, Packed
from services.cron.domain.packing import Bin, Waiting, is_full
from services.cron.store.generator_rows import bin_of, changes_of, standing_of

SQL: Final = Queries("services.cron.store", "packs.sql")
# Bins that are cut in one transaction, and arguments whose sizes it reads: more than twice as many as a batch may have.
BINS_AT_ONCE: Final = 1_000
SIZES_AT_ONCE: Final = 20_000


class PostgresPackStore:
    """The PackStore of the service."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def pack(self, packs: Sequence[Pack], now: datetime, room: Room) -> Packed:
        async def work(connection: Connection) -> Packed:
            standings = await _locked(connection, packs)
            concerned = [(standings[pack.colony, pack.name].generator_id, pack) for pack in packs if _key(pack) in standings]
            if not concerned:
                return Packed([_not_found(pack) for pack in packs], [], {})
            bins = await _bins(connection, concerned)
            known = await _known(connection, concerned)
            due = {standing.generator_id: standing.due for standing in standings.values()}
            gatherings = {key: Gathering(each, bins[each.generator_id], now) for key, each in standings.items()}
            outcomes = [
                _outcome(gatherings[_key(pack)], pack, known, room) if _key(pack) in gatherings else _not_found(pack)
                for pack in packs
            ]
            changed = [each for each in gatherings.values() if each.packs]
            for gathering in changed:
                gathering.look_after_pack()
            if changed:
                await connection.execute(SQL["write"], changes_of(changed, now))
            looks = {
                each.standing.generator_id: each.standing.due
                for each in changed
                if each.standing.due is not None and each.standing.due != due[each.standing.generator_id]
            }
            return Packed(outcomes, [batch for each in changed for batch in each.batches], looks)

        return await self._database.run(work)

    async def flush(self, generator_id: UUID, *, key: str | None, rest: FlushFrom | None, now: datetime) -> Flushed | None:
        async def work(connection: Connection) -> Flushed | None:
            row = await (await connection.execute(SQL["lock_one"], {"id": generator_id})).fetchone()
            if row is None:
                return None
            standing = standing_of(row)
            begin = rest or FlushFrom("", standing.next_sequence)
            values = {"id": generator_id, "key": key, "since": begin.key, "below": begin.below, "limit": BINS_AT_ONCE}
            rows = await (await connection.execute(SQL["bins_below"], values)).fetchall()
            bins = [bin_of(each) for each in rows]
            gathering, all_cut = await cut_bins(connection, standing, bins, now, flush=True)
            gathering.look_after_pack()
            if gathering.batches:
                await connection.execute(SQL["write"], changes_of([gathering], now))
            if len(rows) < BINS_AT_ONCE and all_cut:
                return Flushed(gathering.batches, None)
            # What stays in this page is before all that follows it.
            return Flushed(gathering.batches, replace(begin, key=min(gathering.bins, default=bins[-1].key)))

        return await self._database.run(work)

    async def drop(self, generator_id: UUID, *, key: str | None) -> int | None:
        async def work(connection: Connection) -> int | None:
            row = await (await connection.execute(SQL["lock_one"], {"id": generator_id})).fetchone()
            if row is None:
                return None
            dropped = await (await connection.execute(SQL["drop_bins"], {"id": generator_id, "key": key})).fetchone()
            assert dropped is not None, "the generator is locked"
            return int(dropped["arguments"])

        return await self._database.run(work)


async def cut_bins(
    connection: Connection, standing: Standing, bins: Sequence[Bin], now: datetime, *, flush: bool
) -> tuple[Gathering, bool]:
    """Cuts bins of a locked generator, as far as they are full or over, or wholly; and whether that is all done."""
    gathering = Gathering(standing, {bin_.key: bin_ for bin_ in bins}, now)
    left = SIZES_AT_ONCE
    for bin_ in bins:
        waiting: Sequence[Waiting] = ()
        if is_full(standing.trigger, bin_):
            if left <= 0:
                return gathering, False
            waiting = await _sizes(connection, standing.generator_id, bin_)
            left -= len(waiting)
        gathering.cut(bin_, waiting, flush=flush)
        rest = gathering.bins.get(bin_.key)
        if rest is not None and is_full(standing.trigger, rest):
            return gathering, False
    return gathering, True


async def _sizes(connection: Connection, generator_id: UUID, bin_: Bin) -> list[Waiting]:
    values = {"id": generator_id, "key": bin_.key, "first": bin_.first, "last": bin_.last, "limit": SIZES_AT_ONCE}
    rows = await (await connection.execute(SQL["bin_arguments"], values)).fetchall()
    return [Waiting(row["sequence"], row["size"], row["packed_at"]) for row in rows]


async def _locked(connection: Connection, packs: Sequence[Pack]) -> dict[tuple[str, str], Standing]:
    """The generators of packs, by colony and name."""
    names = list({_key(pack) for pack in packs})
    values = {"colonies": Texts([colony for colony, _ in names]), "names": Texts([name for _, name in names])}
    rows = await (await connection.execute(SQL["lock_named"], values)).fetchall()
    return {(row["colony"], row["name"]): standing_of(row) for row in rows}


async def _bins(connection: Connection, packs: Sequence[tuple[UUID, Pack]]) -> Mapping[UUID, Mapping[str, Bin]]:
    keys = list({(generator_id, argument.key) for generator_id, pack in packs for argument in pack.arguments})
    values = {"generators": Uuids([generator_id for generator_id, _ in keys]), "keys": Texts([key for _, key in keys])}
    bins: defaultdict[UUID, dict[str, Bin]] = defaultdict(dict)
    for row in await (await connection.execute(SQL["find_bins"], values)).fetchall():
        bins[row["generator_id"]][row["key"]] = bin_of(row)
    return bins


async def _known(connection: Connection, packs: Sequence[tuple[UUID, Pack]]) -> dict[UUID, dict[bytes, Known]]:
    values = {
        "generators": Uuids([generator_id for generator_id, _ in packs]),
        "requests": Bytes([pack.request for _, pack in packs]),
    }
    known: dict[UUID, dict[bytes, Known]] = defaultdict(dict)
    for row in await (await connection.execute(SQL["find_packs"], values)).fetchall():
        known[row["generator_id"]][bytes(row["request"])] = Known(bytes(row["content"]), row["first_sequence"])
    return known


def _outcome(gathering: Gathering, pack: Pack, known: dict[UUID, dict[bytes, Known]], room: Room) -> int | Exception:
    of_generator = known[gathering.standing.generator_id]
    try:
        first = gathering.take(pack, of_generator, room)
    except (AlreadyExists, InvalidArgument, ResourceExhausted) as refused:
        return refused
    # The same request may come twice in one transaction.
    of_generator[pack.request] = Known(pack.content, first)
    return first


def _key(pack: Pack) -> tuple[str, str]:
    return pack.colony, pack.name


def _not_found(pack: Pack) -> NotFound:
    msg = f"no generator {pack.name!r} in this colony"
    return NotFound(msg, reason="GENERATOR_NOT_FOUND")
