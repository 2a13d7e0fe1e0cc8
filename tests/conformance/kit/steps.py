"""The steps of a case that speak to the driver, and those that are about the case itself."""

import asyncio
import signal
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from tests.conformance.kit import referee
from tests.conformance.kit.cases import Step
from tests.conformance.kit.driver import Message
from tests.conformance.kit.matching import MismatchError, fill, match, matches, shown
from tests.conformance.kit.messages import for_driver, from_driver
from tests.conformance.kit.play import Play
from tests.conformance.kit.stage import LEASE_MS
from tests.fault.proxy import Mode

STEP_SECONDS = 60.0
REPEAT_SECONDS = 0.1
# Nothing was acknowledged: the call is to be made again.
OUTAGES = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "UNKNOWN"})
DONE = {"result": {"$any": True}}


async def play_step(play: Play, step: Step) -> None:
    """Plays one step.

    Raises:
        MismatchError: something did not come as it should.
        DriverFailedError: the driver died.
    """
    kinds = [kind for kind in STEPS if kind in step]
    assert len(kinds) == 1, f"a step is of one kind: {shown(step)}"
    seconds = step.get("within_s", STEP_SECONDS)
    play.seen = ""
    try:
        async with asyncio.timeout(seconds):
            await STEPS[kinds[0]](play, step)
    except TimeoutError:
        events = shown([event for event in play.driver.history if event["event"] != "message"][-8:], 1600)
        last = f"; last seen: {shown(play.seen)}" if play.seen else ""
        msg = f"not within {seconds:g} s: {shown(fill_known(step, play))}{last}; the events were {events}"
        raise MismatchError(msg) from None
    except MismatchError as error:
        msg = f"{error}   [at {shown(step)}]"
        raise MismatchError(msg) from None


def fill_known(step: Step, play: Play) -> Any:
    """The step for a message; as it is written, if it names what nothing has set yet."""
    try:
        return fill(step, play.scope)
    except (KeyError, IndexError, TypeError):
        return step


async def _tell(play: Play, step: Step) -> None:
    command = fill(step["tell"], play.scope)
    if "method" in command and "request" in command:
        command["request"] = for_driver(command["method"], command["request"])
    if command["do"] == "stream":
        play.streams[command["stream"]] = command["method"]
    if command["do"] == "end_stream":
        del play.streams[command["stream"]]
    if command["do"] == "start_executor":
        play.running.add(command["executor"])
    if "later" in step:
        play.later[step["later"]] = (command, asyncio.create_task(_told(play, command)))
        return
    await _judge(play, command, await play.driver.tell(command), step)


async def _told(play: Play, command: Message) -> Message | None:
    return await play.driver.tell(command)


async def _judge(play: Play, command: Message, answer: Message, step: Step) -> None:
    pattern = step.get("answer", DONE)
    while True:
        if command["do"] == "call" and "result" in answer:
            answer["result"]["response"] = from_driver(command["method"], answer["result"]["response"])
        outage = command["do"] == "call" and answer.get("error", {}).get("code") in OUTAGES
        if not outage or matches(pattern, answer, play.scope):
            break
        await asyncio.sleep(REPEAT_SECONDS)
        answer = await play.driver.tell(command)
    match(pattern, answer, play.scope)


async def _await(play: Play, step: Step) -> None:
    command, task = play.later.pop(step["await"])
    answer = await task
    if answer is not None:
        await _judge(play, command, answer, step)


async def _watch(play: Play, step: Step) -> None:
    """Follows processes to the end, and through outages: the stream is opened again at its cursor, as everybody has to."""
    watch = fill(step["watch"], play.scope)
    if "later" not in step:
        await _follow(play, watch, step)
        return
    play.later[step["later"]] = (watch, asyncio.create_task(_follow(play, watch, step)))


async def _follow(play: Play, watch: Message, step: Step) -> None:
    reasons: list[str] = []
    wanted_end = step.get("end", {"error": {"$absent": True}})
    method, cursor = watch["method"], ""
    while True:
        name = f"watch-{uuid.uuid4()}"
        request = for_driver(method, {**watch["request"], "cursor": cursor})
        play.streams[name] = method
        match(DONE, await play.driver.tell({"do": "stream", "stream": name, "method": method, "request": request}), play.scope)
        while (event := await play.driver.event({"stream": name}, play.scope))["event"] == "message":
            for change in from_driver(method, event["message"]).get("events", ()):
                reasons.append(change["transition"]["reason"])
                cursor = change["cursor"]
        del play.streams[name]
        if event.get("error", {}).get("code") not in OUTAGES or matches(wanted_end, event, play.scope):
            break
        await asyncio.sleep(REPEAT_SECONDS)
    match(wanted_end, event, play.scope)
    match(step["reasons"], reasons, play.scope, "reasons")


async def _event(play: Play, step: Step) -> None:
    await play.driver.event(step["event"], play.scope)


async def _events(play: Play, step: Step) -> None:
    found = [await play.driver.event(pattern, play.scope) for pattern in step["events"]]
    if step.get("in_order"):
        # Two events may be equal, but are not the same.
        places = [next(place for place, one in enumerate(play.driver.history) if one is event) for event in found]
        if places != sorted(places):
            msg = f"they came in another order: {shown([play.driver.history[place] for place in sorted(places)], 1600)}"
            raise MismatchError(msg)


async def _seen(play: Play, step: Step) -> None:
    """Waits for an event and leaves it to others."""
    while not any(matches(step["seen"], event, play.scope) for event in play.driver.history):
        await asyncio.sleep(REPEAT_SECONDS)


async def _never(play: Play, step: Step) -> None:
    for event in play.driver.history:
        if matches(step["never"], event, play.scope):
            msg = f"there was an event that should not have been: {shown(event)}"
            raise MismatchError(msg)


async def _start(play: Play, step: Step) -> None:
    options = fill(step["start"], play.scope)
    approved = options.pop("approved", True)
    if approved:
        await referee.enrol(play)
    connect = {name: play.scope[name] for name in ("address", "cluster", "colony", "seed")}
    match(DONE, await play.driver.tell({"do": "connect", **connect}), play.scope)
    command = {
        "do": "start_executor",
        "executor": "e",
        "name": play.scope["name"],
        "types": [play.scope["type"]],
        "concurrency": 1,
        **options,
    }
    match(DONE, await play.driver.tell(command), play.scope)
    play.running.add(command["executor"])
    if approved:
        await play.driver.event({"event": "state", "executor": command["executor"], "state": "ready"}, play.scope)


async def _stop(play: Play, step: Step) -> None:
    match(DONE, await play.driver.tell({"do": "stop_executor", "executor": step["stop"]}), play.scope)


async def _stopped(play: Play, step: Step) -> None:
    match(step.get("is", {"error": {"$absent": True}}), await play.stopped(step["stopped"]), play.scope)


async def _way(play: Play, step: Step) -> None:
    await play.colony.way.turn(Mode(step["way"]))


async def _pause(play: Play, step: Step) -> None:
    play.paused = step["pause"]
    play.driver.send(signal.SIGSTOP if play.paused else signal.SIGCONT)


async def _middle(play: Play, _step: Step) -> None:
    await play.middle()


async def _elapse(_play: Play, step: Step) -> None:
    # Time itself is what the case is about: no lease may end in it.
    await asyncio.sleep(step["elapse"]["leases"] * LEASE_MS / 1000)


async def _check(play: Play, step: Step) -> None:
    match(step["is"], fill(step["check"], play.scope), play.scope)


STEPS: Mapping[str, Callable[[Play, Step], Awaitable[None]]] = {
    "tell": _tell,
    "await": _await,
    "watch": _watch,
    "event": _event,
    "events": _events,
    "seen": _seen,
    "never": _never,
    "start": _start,
    "stop": _stop,
    "stopped": _stopped,
    "way": _way,
    "pause": _pause,
    "middle": _middle,
    "elapse": _elapse,
    "check": _check,
    **referee.STEPS,
}
