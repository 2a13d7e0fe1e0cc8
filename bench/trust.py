"""What zero trust costs: the same loads with receipts and without, and with signatures and without, in turns."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from bench.calls import UnaryCycles
from bench.installation import UNSIGNED, WITH_ALL, WITHOUT_RECEIPTS, Build, Installation
from bench.loads import Load, LoadProcess, Timed, Window, running
from bench.run import Run, Samples, done_in, expect, once
from bench.sdk import SdkExecutors, SdkSubmits
from bench.unsigned import unsigned_calls

EXECUTORS = 8
SDK_CONCURRENCY = 32
UNARY = "trust-unary"
SDK = "trust-sdk"


@dataclass
class Unsigned(Load[Any, Any]):
    """Another load, in whose process nothing is signed."""

    inner: Load[Any, Any]

    async def open(self) -> None:
        unsigned_calls()
        await self.inner.open()

    async def run(self, job: Any) -> Any:
        return await self.inner.run(job)

    async def close(self) -> None:
        await self.inner.close()


def trust(run: Run) -> Samples:
    """Three installations side by side, of which one works at a time: as shipped, without receipts, without signatures."""
    samples: dict[str, list[float]] = {name: [] for name in ("receipts_unary", "receipts_sdk", "signed_unary", "signed_sdk")}
    with ExitStack() as stack:
        sides = [stack.enter_context(_side(run, build)) for build in (WITH_ALL, WITHOUT_RECEIPTS, UNSIGNED)]
        for number in range(run.effort.repetitions + 1):
            # Each side is first as often as the others: whoever comes after another finds its disk busy.
            turns = [*sides[number % 3 :], *sides[: number % 3]]
            unary_of = {side: side.unary(run.effort.seconds) for side in turns}
            sdk_of = {side: side.sdk(run.effort.sdk_functions) for side in turns}
            unary, sdk = [unary_of[side] for side in sides], [sdk_of[side] for side in sides]
            if number:  # the first is the warm-up
                for kind, (plain, without_receipts, unsigned) in (("unary", unary), ("sdk", sdk)):
                    samples[f"receipts_{kind}"].append(plain / without_receipts)
                    samples[f"signed_{kind}"].append(plain / unsigned)
        for side in sides:
            side.check()
    return samples


class _Side:
    """One installation and its loads."""

    def __init__(
        self,
        installation: Installation,
        cycles: Sequence[LoadProcess[Timed, Window]],
        client: LoadProcess[int, float],
    ) -> None:
        self._installation = installation
        self._cycles = cycles
        self._client = client
        self._windows: list[list[Window]] = []
        self._functions = 0

    def unary(self, seconds: float) -> float:
        """Cycles a second, a call each."""
        return once(self._cycles, seconds, self._windows)

    def sdk(self, functions: int) -> float:
        """Functions a second, through SDK objects."""
        self._functions += functions
        return functions / self._client.run(functions)

    def check(self) -> None:
        """Counts what is in the server."""
        expected: Mapping[str, int] = {UNARY: done_in(self._windows), SDK: self._functions}
        for colony, count in expected.items():
            expect(self._installation, colony, {"SUCCESSFUL": count})


@contextmanager
def _side(run: Run, build: Build) -> Iterator[_Side]:
    with run.another(build=build) as installation:
        unary, sdk = (installation.colony(name, workers=EXECUTORS) for name in (UNARY, SDK))
        keys = [worker.key.hex for worker in unary.workers]
        cycles: list[Load[Any, Any]] = [UnaryCycles(unary.door, keys[half::2]) for half in range(2)]
        workers = [(worker.name, worker.key.hex) for worker in sdk.workers]
        executors: list[Load[Any, Any]] = [SdkExecutors(sdk.door, workers, SDK_CONCURRENCY)]
        clients: list[Load[Any, Any]] = [SdkSubmits(sdk.door, sdk.user.hex)]
        loads = [cycles, executors, clients]
        if not build.is_signed:
            loads = [[Unsigned(load) for load in some] for some in loads]
        with running(loads[0]) as cycling, running(loads[1]), running(loads[2]) as (client,):
            yield _Side(installation, cycling, client)
