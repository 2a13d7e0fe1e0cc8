"""Many sensors pack their readings; a workflow for each batch of a sensor averages it.

    colonies up
    python examples/sensor_generator.py

It needs a stack on this machine, as `colonies up` makes it, and takes some seconds.
"""

import asyncio
import random
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from colonies import AsyncClient, Executor, Function, PrivateKey, Profile, errors
from colonies.cron.v1 import generator_service_pb2 as generator
from colonies.profile import active
from colonies.values import decode_all

TYPE = "sensor-example"
SENSORS = 8
READINGS = 55
BATCH = 25
TIMEOUT_SECONDS = 1.0


@asynccontextmanager
async def executor_of(profile: Profile) -> AsyncIterator[None]:
    """An executor that averages, in this program; in life it runs elsewhere, for ever."""
    key = PrivateKey.generate()
    name = f"averager-{secrets.token_hex(4)}"
    executor = Executor(name, executor_types=[TYPE], key=key, concurrency=4)

    @executor.function
    def average(*readings: float) -> dict[str, Any]:
        """A batch comes as the function's arguments."""
        return {"count": len(readings), "sum": sum(readings), "mean": sum(readings) / len(readings)}

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


async def sense(client: AsyncClient, name: str, sensor: str) -> float:
    """One sensor: packs its readings, each as soon as it is there; gives their sum."""
    readings = [round(random.gauss(20, 2), 1) for _ in range(READINGS)]
    # Packs of all sensors that are made at the same time travel in one call. Those of one sensor keep their order.
    await asyncio.gather(*(client.pack(name, reading, key=sensor) for reading in readings))
    return sum(readings)


async def submitted(client: AsyncClient, name: str, arguments: int) -> list[generator.Batch]:
    """All batches in the order in which they were made, once every argument is in one that was submitted."""
    while True:
        batches = [each async for each in client.list_batches(name) if each.HasField("submitted_time")]
        if sum(batch.count for batch in batches) == arguments:
            return batches[::-1]
        await asyncio.sleep(0.2)


async def output(client: AsyncClient, workflow_id: str) -> dict[str, Any]:
    """What the workflow of a batch put out."""
    await client.wait_workflow(workflow_id, timeout=30)
    (process_id,) = [process.process_id async for process in client.list_processes(workflow_id=workflow_id)]
    (found,) = decode_all((await client.get_process(process_id)).outputs)
    return dict(found)


async def main() -> None:
    """Adds the generator, lets the sensors run, and prints what became of each batch."""
    profile = active()
    name = f"readings-{secrets.token_hex(4)}"
    sensors = [f"sensor-{number}" for number in range(1, SENSORS + 1)]
    async with AsyncClient.from_profile(profile) as client, executor_of(profile):
        await client.add_generator(name, Function("average", executortype=TYPE), max_count=BATCH, timeout=TIMEOUT_SECONDS)
        try:
            sums = await asyncio.gather(*(sense(client, name, sensor) for sensor in sensors))
            print(f"packed {SENSORS * READINGS} readings of {SENSORS} sensors")
            batches = await submitted(client, name, SENSORS * READINGS)
            averaged: Counter[str] = Counter()
            count = 0
            for batch in batches:
                found = await output(client, batch.workflow_id)
                averaged[batch.key] += found["sum"]
                count += found["count"]
                reason = generator.BatchReason.Name(batch.reason).removeprefix("BATCH_REASON_").lower()
                print(f"  batch {batch.number:2} of {batch.key}: mean of {found['count']:2} is {found['mean']:.2f} ({reason})")
        finally:
            await client.remove_generator(name, force=True)
    if any(abs(averaged[sensor] - total) > 1e-6 for sensor, total in zip(sensors, sums, strict=True)):
        msg = "a reading was lost, or counted twice"
        raise SystemExit(msg)
    full = sum(batch.reason == generator.BATCH_REASON_COUNT for batch in batches)
    print(f"{count} readings averaged by {len(batches)} workflows: {full} full, {len(batches) - full} by timeout")


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except errors.ColoniesError as error:
        raise SystemExit(f"error: {error}") from error
