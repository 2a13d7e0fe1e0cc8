"""`colonies generator pack`: values from the command line or the standard input, each packed once."""

import asyncio
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from colonies.cli.connection import Connection, connected
from colonies.cli.failure import usage
from colonies.cli.options import Options
from colonies.cli.output import note
from colonies.client.generators import calls_of
from colonies.cron.v1.generator_service_pb2 import Argument
from colonies.errors import ResourceExhaustedError, UnavailableError
from colonies.scheduler.v1.spec_pb2 import Value

MAX_ID = 100
# What a repetition of the command may mend.
UNFINISHED = (UnavailableError, ResourceExhaustedError, KeyboardInterrupt)


@dataclass(slots=True)
class Packed:
    """What has been packed so far; the sequence number is that of the first argument."""

    count: int = 0
    first_sequence: int = 0


def calls(groups: Iterable[Sequence[Value]], key: str, *, steady: bool) -> Iterator[list[Argument]]:
    """The arguments of each call. What comes is sent as soon as it is there, unless the calls must be the same the next time
    (`steady`): then a call is only sent when it is full.
    """
    pending: list[Argument] = []
    for group in groups:
        pending += [Argument(key=key, value=value) for value in group]
        divided = list(calls_of(pending))
        pending = divided.pop() if steady and divided else []
        yield from divided
    if pending:
        yield pending


def pack(
    options: Options,
    name: str,
    groups: Iterable[Sequence[Value]],
    *,
    key: str,
    request_id: str | None,
    retry_for: float,
    repeatable: bool,
) -> Packed:
    """Packs the values, one call after the other, each under a request id of its own that all its tries share.

    Args:
        options: the global options.
        name: the generator.
        groups: the values, as they come.
        key: of all of them.
        request_id: what the ids of the calls begin with; repeating it with the same values packs only what is missing.
        retry_for: seconds to ride out an outage, or a full generator.
        repeatable: whether the same command would divide its values into the same calls.
    """
    if request_id is not None and not 1 <= len(request_id) <= MAX_ID:
        msg = f"--request-id: 1 to {MAX_ID} characters"
        raise usage(msg)
    stem = request_id or str(uuid.uuid4())
    packed = Packed()
    # The loop stands still while values are read, so that an interruption ends the reading at once.
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        try:
            here = runner.run(stack.enter_async_context(connected(options)))
            here.client.retry_for = retry_for
            for number, call in enumerate(calls(groups, key, steady=request_id is not None), 1):
                runner.run(_send(here, name, call, f"{stem}-{number}", packed))
        except BaseException as error:
            if packed.count:
                note(f"packed {packed.count} arguments before this")
            if isinstance(error, UNFINISHED) and (repeatable or request_id is not None):
                note(f"to pack what is missing, and nothing twice: the same again with --request-id {stem}")
            raise
        finally:
            runner.run(stack.aclose())
    return packed


async def _send(here: Connection, name: str, call: Sequence[Argument], request_id: str, packed: Packed) -> None:
    # Without a colony the request would be refused with a field name; say it in words first.
    _ = here.colony
    values = [argument.value for argument in call]
    sequence = await here.client.pack(name, *values, key=call[0].key, request_id=request_id)
    packed.first_sequence = packed.first_sequence or sequence
    packed.count += len(call)
