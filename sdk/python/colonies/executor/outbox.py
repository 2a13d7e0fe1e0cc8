"""What a running function reports on the way: log lines, attributes, early outputs, messages."""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from colonies.client import AsyncClient
from colonies.errors import RpcError
from colonies.executor.channels import AttemptChannels, Said
from colonies.scheduler.v1 import scheduler_service_pb2 as scheduler
from colonies.scheduler.v1.process_pb2 import Attribute, LogLine
from colonies.scheduler.v1.spec_pb2 import Value

MAX_ITEMS_IN_CALL = 1_000
MAX_BYTES_IN_CALL = 1 << 20
# In an outage reports pile up; past this many, log lines are counted and not kept.
MAX_WAITING = 50_000

log = logging.getLogger("colonies.executor")


@dataclass(frozen=True, slots=True)
class Outputs:
    """Outputs set before the close."""

    values: Sequence[Value]


Report = LogLine | Attribute | Outputs | Said


class Outbox:
    """Sends the reports of one attempt in order, several in a call, while the function goes on. `put` works in any thread."""

    def __init__(self, client: AsyncClient, attempt: scheduler.AttemptRef) -> None:
        self._client = client
        self._attempt = attempt
        self.channels = AttemptChannels(client, attempt, self.put)
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._waiting: deque[Report] = deque()
        self._unkept_lines = 0
        # Lines are counted, so that a call that is repeated after an outage adds none twice.
        self._sent_lines = 0
        self._abandoned = False
        self._sender: asyncio.Task[None] | None = None

    def put(self, report: Report) -> None:
        """Takes a report; it is sent soon. Reports of an attempt that is over are thrown away."""
        with self._lock:
            if self._abandoned:
                return
            if len(self._waiting) >= MAX_WAITING and isinstance(report, LogLine):
                self._unkept_lines += 1
                return
            self._waiting.append(report)
        self._loop.call_soon_threadsafe(self._ensure_sender)

    @property
    def is_empty(self) -> bool:
        """Whether everything put so far was sent. For the event loop's thread."""
        return not self._waiting and (self._sender is None or self._sender.done())

    async def flush(self) -> None:
        """Returns when everything put so far was sent, or nobody wants it any more."""
        self._ensure_sender()
        if self._sender is not None:
            await asyncio.wait([self._sender])

    def abandon(self) -> None:
        """Throws away what was not sent: the attempt is over."""
        with self._lock:
            self._abandoned = True
            self._waiting.clear()
        self.channels.abandon()
        if self._sender is not None:
            self._sender.cancel()

    def _ensure_sender(self) -> None:
        if self._waiting and (self._sender is None or self._sender.done()):
            self._sender = asyncio.create_task(self._send_all())

    async def _send_all(self) -> None:
        while batch := self._take():
            try:
                await self._send(batch)
            except RpcError as error:
                log.warning("%d reports of process %s were refused: %s", len(batch), self._attempt.process_id, error)

    def _take(self) -> list[Report]:
        """The next reports that go together."""
        batch: list[Report] = []
        size = 0
        with self._lock:
            while (
                self._waiting
                and len(batch) < MAX_ITEMS_IN_CALL
                and size < MAX_BYTES_IN_CALL
                and (not batch or _go_together(self._waiting[0], batch[0]))
                and not (batch and isinstance(batch[0], Outputs))
            ):
                report = self._waiting.popleft()
                batch.append(report)
                size += _size_of(report)
            if self._unkept_lines and not self._waiting:
                self._waiting.append(LogLine(message=f"({self._unkept_lines} lines were not kept during an outage)"))
                self._unkept_lines = 0
        return batch

    async def _send(self, batch: Sequence[Report]) -> None:
        client, colony = self._client, self._client.colony
        lines = [report for report in batch if isinstance(report, LogLine)]
        if lines:
            logs = scheduler.AddLogsRequest(
                colony_name=colony, attempt=self._attempt, lines=lines, first_number=self._sent_lines + 1
            )
            self._sent_lines += len(lines)
            await client.call(client.scheduler.AddLogs, logs)
        messages = [report for report in batch if isinstance(report, Said)]
        if messages:
            await self.channels.send(messages)
        # The last value of a key wins; the RPC takes each only once.
        attributes = {(report.kind, report.key): report for report in batch if isinstance(report, Attribute)}
        if attributes:
            request = scheduler.SetAttributesRequest(colony_name=colony, attempt=self._attempt, attributes=attributes.values())
            await client.call(client.scheduler.SetAttributes, request)
        for report in batch:
            if isinstance(report, Outputs):
                outputs = scheduler.SetOutputRequest(colony_name=colony, attempt=self._attempt, outputs=report.values)
                await client.call(client.scheduler.SetOutput, outputs)


def _go_together(one: Report, other: Report) -> bool:
    """Whether two reports may be sent side by side. A function that logs what it sends should not cost a call for each."""
    return type(one) is type(other) or (isinstance(one, LogLine | Said) and isinstance(other, LogLine | Said))


def _size_of(report: Report) -> int:
    """Bytes in a call. Outputs travel alone, however large they are."""
    if isinstance(report, Outputs):
        return 0
    return report.message.ByteSize() if isinstance(report, Said) else report.ByteSize()
