"""Channels in Postgres: an append locks the channel's row, so that numbers have no gap and are committed in order."""

from collections.abc import Sequence
from datetime import datetime

from servicekit.failures import NotFound
from servicekit.postgres import Connection, Database
from services.scheduler.domain.channelling import (
    SUBMITTER,
    Accept,
    Allow,
    Appending,
    ChannelRef,
    ChannelRow,
    Kind,
    Message,
    MessageView,
    Page,
    Sent,
)
from services.scheduler.domain.states import State
from services.scheduler.store.rows import Row
from services.scheduler.store.sql import CHANNELS as SQL
from services.scheduler.store.sql import WRITES, no_process

MAX_PAGE_BYTES = 2 * 1024 * 1024


class ChannelTables:
    """The tables of channels."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, channel: ChannelRef, appending: Appending, accept: Accept, at: datetime) -> int:
        """Adds what `accept` says of the locked row; how many that were.

        Raises:
            NotFound: no such process in this colony, or it has no such channel.
        """

        async def work(connection: Connection) -> int:
            row = await _row(connection, "lock_channel", channel, appending.identity)
            new = accept(row)
            if new:
                await connection.execute(SQL["add_messages"], _addition(channel, row, appending, new, at))
            return len(new)

        return await self._database.run(work)

    async def messages_after(self, channel: ChannelRef, identity: str, allow: Allow, after: int, limit: int) -> Page:
        """At most `limit` messages after a number, and about 2 MiB but at least one, when `allow` lets the reader in.

        Raises:
            NotFound: as for `append`.
        """
        async with self._database.transaction() as connection:
            # First whether it is over, then the messages: after its end none are added.
            row = await _row(connection, "read_channel", channel, identity)
            allow(row)
            if after >= row.messages:
                return Page((), more=False, over=row.is_over)
            parameters = {
                "id": channel.process_id,
                "channel": channel.name,
                "after": after,
                "limit": limit,
                "max_bytes": MAX_PAGE_BYTES,
            }
            rows = await (await connection.execute(SQL["list_messages"], parameters)).fetchall()
        views = [_view_of(one) for one in rows]
        return Page(views, more=bool(views) and views[-1].number < row.messages, over=row.is_over)


async def _row(connection: Connection, query: str, channel: ChannelRef, identity: str) -> ChannelRow:
    parameters = {"id": channel.process_id, "colony": channel.colony, "channel": channel.name, "identity": identity}
    row = await (await connection.execute(SQL[query], parameters)).fetchone()
    if row is None:
        cursor = await connection.execute(WRITES["process_exists"], parameters)
        if await cursor.fetchone() is None:
            raise no_process(channel.process_id)
        msg = f"process {channel.process_id} has no channel {channel.name}"
        raise NotFound(msg, reason="CHANNEL_NOT_FOUND")
    return ChannelRow(
        state=State(row["state"]),
        live_attempt=row["live_attempt"],
        executor_id=row["executor_id"],
        initiator=row["initiator"],
        took_part=row["took_part"],
        messages=row["messages"],
        bytes=row["bytes"],
        submitter=Sent(row["submitter_sent"], row["submitter_ended"]),
        attempt=row["attempt"],
        executor=Sent(row["attempt_sent"], row["attempt_ended"]),
    )


def _addition(
    channel: ChannelRef, row: ChannelRow, appending: Appending, new: Sequence[Message], at: datetime
) -> dict[str, object]:
    """The parameters that add messages and count them for their sender."""
    before = row.sent_by(appending.attempt)
    now = Sent(before.messages + len(new), new[-1].kind is not Kind.DATA)
    by_submitter = appending.attempt == SUBMITTER
    submitter, executor = (now, row.executor) if by_submitter else (row.submitter, now)
    return {
        "id": channel.process_id,
        "channel": channel.name,
        "messages": row.messages,
        "bytes": sum(len(message.value) for message in new),
        "submitter_sent": submitter.messages,
        "submitter_ended": submitter.ended,
        "attempt": row.attempt if by_submitter else appending.attempt,
        "attempt_sent": executor.messages,
        "attempt_ended": executor.ended,
        "sender_attempt": appending.attempt,
        "sender_name": appending.name,
        "at": at,
        "kinds": [message.kind.value for message in new],
        "values": [message.value for message in new],
    }


def _view_of(row: Row) -> MessageView:
    return MessageView(row["number"], row["attempt"], row["sender_name"], row["at"], row["kind"], bytes(row["value"]))
