"""A conversation between a submitter and an executor, through the front door, over the death of the scheduler."""

import asyncio

import pytest

from colonies import Function
from tests.acceptance.world import World

NUMBERS = 60


@pytest.mark.asyncio
async def test_every_question_gets_its_answer_once(installation: World) -> None:
    await installation.start_executor("worker-1", ["cloud"])
    async with installation.client() as client:
        process_id = await client.submit(Function("squares", executortype="cloud", channels=["numbers"]))
        channel = client.channel(process_id, "numbers")

        async def ask() -> None:
            for number in range(NUMBERS):
                await channel.send(number)
                if number == NUMBERS // 3:
                    installation.kill("scheduler")
            await channel.end()

        asking = asyncio.create_task(ask())
        answers: list[int] = []
        async for answer in channel:
            answers.append(answer)
            if len(answers) == 2 * NUMBERS // 3:
                installation.kill("valkey")
        await asking
        assert answers == [number * number for number in range(NUMBERS)]
        assert await client.wait(process_id, timeout=60) == [NUMBERS]
        assert (await client.get_process(process_id)).attempt == 1
    lines = installation.colonies("channel", "list", process_id, "numbers").stdout.splitlines()
    assert len(lines) == 2 * NUMBERS + 2
    assert [line.rpartition("  ")[2] for line in lines if "-- end" in line] == ["-- end"] * 2
    assert installation.colonies("channel", "send", process_id, "numbers", "late", check=False).returncode == 6
    installation.end_executors()
