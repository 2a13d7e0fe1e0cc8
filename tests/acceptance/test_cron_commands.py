"""Crons and generators from the shell and from the SDK, on a running stack."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from colonies import FirePolicy, Function, Schedule
from colonies.cron.v1 import cron_service_pb2 as cron
from colonies.cron.v1 import generator_service_pb2 as generator
from colonies.errors import FailedPreconditionError, InvalidArgumentError
from colonies.values import decode_all
from tests.acceptance.world import World, until


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "workflow.json"
    path.write_text(json.dumps({"nodes": [{"name": "a", "function": "sum", "executor_type": "nobody", "args": [1]}]}))
    return str(path)


async def arguments(installation: World, workflow_id: str) -> list[Any]:
    """With what a workflow's only process is called."""
    async with installation.client() as client:
        (found,) = [each async for each in client.list_processes(workflow_id=workflow_id)]
        return decode_all((await client.get_process(found.process_id)).spec.args)


def test_a_crons_life_from_the_shell(installation: World, file: str) -> None:
    preview = installation.json("cron", "preview", "--expression", "@daily", "--time-zone", "Asia/Tokyo", "-n", "2")
    assert len(preview["fire_times"]) == 2
    assert all(moment.endswith("T15:00:00Z") for moment in preview["fire_times"])
    added = installation.json("cron", "add", "daily", file, "--expression", "@daily", "--overlap", "skip")
    assert (added["state"], added["policy"]["overlap"]) == ("CRON_STATE_ACTIVE", "OVERLAP_POLICY_SKIP")
    assert "daily" in installation.colonies("cron", "list").stdout
    run = installation.json("cron", "run", "daily", "--request-id", "r")
    assert installation.json("cron", "run", "daily", "--request-id", "r") == run
    shown = installation.json("cron", "get", "daily")
    assert len(shown["next_fire_times"]) == 5
    assert [(fire["kind"], fire["workflow_id"]) for fire in shown["fires"]] == [("FIRE_KIND_RUN", run["workflow_id"])]
    paused = installation.json("cron", "pause", "daily")
    assert paused["state"] == "CRON_STATE_PAUSED"
    assert paused["pause_reason"] in installation.colonies("cron", "get", "daily").stdout
    assert installation.json("cron", "resume", "daily")["state"] == "CRON_STATE_ACTIVE"
    updated = installation.json("cron", "update", "daily", file, "--every", "1h", "--missed", "all")
    assert (updated["schedule"]["interval_ms"], updated["policy"]["overlap"]) == ("3600000", "OVERLAP_POLICY_ALLOW")
    assert len(installation.json("cron", "next", "daily", "-n", "3")["fire_times"]) == 3
    assert installation.json("cron", "fires", "daily", "--outcome", "refused") == []
    assert installation.json("cron", "remove", "daily") == {"removed": "daily"}
    gone = installation.colonies("cron", "get", "daily", check=False)
    assert (gone.returncode, gone.stderr.startswith("error: ")) == (3, True)


def test_what_makes_no_sense_is_refused_by_name(installation: World, file: str) -> None:
    for options, text in (
        (("--expression", "0 0 0 31 2 *"), "schedule.expression"),
        (("--expression", "@daily", "--time-zone", "Europe/Gothenburg"), "schedule.time_zone"),
        (("--every", "10ms"), "schedule.interval_ms"),
    ):
        result = installation.colonies("cron", "add", "bad", file, *options, check=False)
        assert result.returncode == 2
        assert text in result.stderr
    result = installation.colonies("generator", "add", "bad", file, "--count", "1000", check=False)
    assert result.returncode == 2
    assert "trigger.max_count" in result.stderr
    assert installation.json("cron", "list") == []


@pytest.mark.asyncio
async def test_a_generators_life_from_the_shell(installation: World, file: str) -> None:
    installation.json("generator", "add", "g", file, "--count", "3", "--timeout", "1h")
    packed = installation.json("generator", "pack", "g", "2", "text", '{"a": [1.50]}', "[4]", "--request-id", "r")
    assert packed == {"packed": 4, "first_sequence": "1"}
    assert installation.json("generator", "pack", "g", "2", "text", '{"a": [1.50]}', "[4]", "--request-id", "r") == packed

    async def full_is_submitted() -> bool:
        found = installation.json("generator", "get", "g")
        return bool(found["batches"] == "1" and found["waiting"] == "1")

    await until(full_is_submitted, "the full batch is submitted")
    (batch,) = installation.json("generator", "batches", "g")
    assert (batch["count"], batch["reason"]) == (3, "BATCH_REASON_COUNT")
    assert await arguments(installation, batch["workflow_id"]) == [1, 2, "text", {"a": [1.5]}]
    (waiting,) = installation.json("generator", "bins", "g")
    assert (waiting["waiting"], waiting["deadline_time"] is not None) == ("1", True)
    kept = installation.colonies("generator", "remove", "g", check=False)
    assert kept.returncode == 6
    assert installation.json("generator", "pause", "g")["state"] == "GENERATOR_STATE_PAUSED"
    assert installation.json("generator", "flush", "g") == {"batches": 1, "arguments": "1"}
    assert installation.json("generator", "resume", "g")["state"] == "GENERATOR_STATE_ACTIVE"
    installation.json("generator", "pack", "g", "5", "--key", "k")
    assert installation.json("generator", "drop", "g", "--key", "k") == {"arguments": "1"}
    assert installation.json("generator", "remove", "g", "--force") == {"removed": "g"}


@pytest.mark.asyncio
async def test_lines_from_a_pipe_keep_their_order(installation: World, file: str) -> None:
    installation.json("generator", "add", "piped", file, "--count", "700", "--timeout", "500ms")
    done = subprocess.run(
        [str(Path(sys.executable).with_name("colonies")), "--json", "generator", "pack", "piped", "-"],
        env=installation.environment,
        input="".join(f"{number}\n" for number in range(2500)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"packed": 2500, "first_sequence": "1"}

    async def all_are_submitted() -> bool:
        return bool(sum(batch["count"] for batch in installation.json("generator", "batches", "piped")) == 2500)

    await until(all_are_submitted, "every argument is in a batch")
    seen: list[int] = []
    for batch in reversed(installation.json("generator", "batches", "piped")):
        assert batch["count"] <= 700
        seen += (await arguments(installation, batch["workflow_id"]))[1:]
    assert seen == list(range(2500))
    installation.json("generator", "remove", "piped", "--force")


@pytest.mark.asyncio
async def test_the_sdk_adds_updates_and_reads(installation: World) -> None:
    work = Function("sum", executortype="nobody")
    async with installation.client() as client:
        schedule = Schedule("* * * * * *", max_runs=2)
        added = await client.add_cron("two", work, schedule, FirePolicy(missed="all", missed_at_most=5))
        assert (
            await client.add_cron("two", work, schedule, FirePolicy(missed="all", missed_at_most=5))
        ).cron_id == added.cron_id

        async def has_ended() -> bool:
            return (await client.get_cron("two")).state == cron.CRON_STATE_ENDED

        await until(has_ended, "two runs end it")
        fires = [fire async for fire in client.list_fires("two", outcomes=["submitted"])]
        assert [fire.workflow_id for fire in fires] == [fire.fire_id for fire in fires]
        assert sum(fire.outcome == cron.FIRE_OUTCOME_SUBMITTED for fire in fires) == 2
        with pytest.raises(FailedPreconditionError) as caught:
            await client.pause_cron("two")
        assert caught.value.reason == "CRON_ENDED"
        with pytest.raises(InvalidArgumentError, match="random_interval_ms"):
            await client.preview_schedule(Schedule(random_every=0.5))
        assert len((await client.preview_schedule(Schedule(random_every=60), count=7)).fire_times) == 7
        await client.remove_cron("two")


@pytest.mark.asyncio
async def test_packs_of_the_sdk_are_numbered_in_their_order(installation: World) -> None:
    async with installation.client() as client:
        await client.add_generator("n", Function("sum", executortype="nobody"), max_count=10, timeout=3600)
        firsts = await asyncio.gather(*(client.pack("n", number) for number in range(95)))
        assert firsts == list(range(1, 96))
        assert await client.pack("n", 95, 96, request_id="once") == await client.pack("n", 95, 96, request_id="once") == 96
        assert await client.pack_all("n", range(97, 1205), request_id="many") == 1108
        flushed = await client.flush_generator("n")
        assert (flushed.batches, flushed.arguments) == (1, 5)
        batches = [batch async for batch in client.list_batches("n")]
        assert [batch.count for batch in batches] == [5] + [10] * 120
        assert [batch.reason for batch in batches[:2]] == [generator.BATCH_REASON_FLUSH, generator.BATCH_REASON_COUNT]
        await client.remove_generator("n", force=True)
