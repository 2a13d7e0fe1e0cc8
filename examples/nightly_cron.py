"""A cron whose runs build on each other: each adds one to what the last one put out.

    colonies up
    python examples/nightly_cron.py

It needs a stack on this machine, as `colonies up` makes it, and takes about twenty seconds: the nightly schedule is only looked
at; what runs here fires every two seconds.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from google.protobuf.timestamp_pb2 import Timestamp

from colonies import AsyncClient, Executor, FirePolicy, Function, PrivateKey, Profile, Schedule, errors
from colonies.cron.v1 import cron_service_pb2 as cron
from colonies.profile import active
from colonies.values import decode_all

TYPE = "nightly-example"
RUNS = 5
ZONE = ZoneInfo("Europe/Stockholm")


@asynccontextmanager
async def executor_of(profile: Profile) -> AsyncIterator[None]:
    """An executor that counts, in this program; in life it runs elsewhere, for ever."""
    key = PrivateKey.generate()
    name = f"counter-{secrets.token_hex(4)}"
    executor = Executor(name, executor_types=[TYPE], key=key)

    @executor.function
    def count(so_far: int = 0) -> int:
        """One more than the last run; the first has none before it."""
        return so_far + 1

    async with (
        AsyncClient.from_profile(profile, key=key) as itself,
        AsyncClient.from_profile(profile, key=profile.load_owner_key()) as owner,
    ):
        await itself.register_executor(name, [TYPE])
        await owner.approve_executor(key.identity)
        working = asyncio.create_task(executor.arun())
        try:
            yield
        finally:
            executor.stop()
            await working
            await owner.remove_executor(key.identity)


async def look_at_the_night(client: AsyncClient) -> None:
    """When a nightly job would run around the night in which the clocks are put forward."""
    nightly = Schedule("0 30 2 * * *", time_zone=ZONE.key)
    preview = await client.preview_schedule(nightly, count=3, after=datetime(2027, 3, 27, tzinfo=UTC))
    print(preview.description)
    for moment in preview.fire_times:
        print(f"  {local(moment)}")


def local(moment: Timestamp) -> str:
    """A moment in the schedule's own zone."""
    return moment.ToDatetime(tzinfo=UTC).astimezone(ZONE).strftime("%Y-%m-%d %H:%M:%S %Z")


async def ended(client: AsyncClient, name: str) -> cron.Cron:
    """The cron, once no moment of it comes any more."""
    while (found := await client.get_cron(name)).state != cron.CRON_STATE_ENDED:
        await asyncio.sleep(0.5)
    return found


async def output(client: AsyncClient, workflow_id: str) -> int:
    """What a run put out."""
    await client.wait_workflow(workflow_id, timeout=30)
    (process_id,) = [process.process_id async for process in client.list_processes(workflow_id=workflow_id)]
    (count,) = decode_all((await client.get_process(process_id)).outputs)
    return int(count)


async def main() -> None:
    """Adds the cron, lets it end by itself, and prints what became of each fire."""
    profile = active()
    name = f"nightly-{secrets.token_hex(4)}"
    async with AsyncClient.from_profile(profile) as client, executor_of(profile):
        await look_at_the_night(client)
        # "queue": a fire waits for the run before it, whose output it is to be given.
        schedule = Schedule("*/2 * * * * *", time_zone=ZONE.key, max_runs=RUNS)
        added = await client.add_cron(
            name, Function("count", executortype=TYPE), schedule, FirePolicy(overlap="queue", feed_outputs=True)
        )
        print(f"{added.description}, {RUNS} times:")
        try:
            await ended(client, name)
            fires = [fire async for fire in client.list_fires(name, outcomes=["submitted"])]
            counts = []
            for fire in reversed(fires):
                counts.append(await output(client, fire.workflow_id))
                print(f"  due {local(fire.due_time)}, {fire.delay_ms} ms later: the count is {counts[-1]}")
        finally:
            await client.remove_cron(name)
    if counts != list(range(1, RUNS + 1)):
        msg = f"each run should have added one to the last: {counts}"
        raise SystemExit(msg)
    print(f"{RUNS} runs counted to {counts[-1]}")


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except errors.ColoniesError as error:
        raise SystemExit(f"error: {error}") from error
