"""Services as processes of their own, for tests that look at them from outside: memory, logs, command lines, death."""

import asyncio
import itertools
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import psutil
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from deploy.local.ports import free_port
from tests.harness.cluster import START_S, Cluster

LOOPBACK = "127.0.0.1"
_numbers = itertools.count(1)


def environment_of(settings: Mapping[str, object]) -> dict[str, str]:
    """Settings as a service process reads them."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COLONIES_")}
    for name, value in settings.items():
        text = ",".join(f"{key}={one}" for key, one in value.items()) if isinstance(value, Mapping) else str(value)
        environment[f"COLONIES_{name.upper()}"] = text
    return environment


class RunningProcess:
    """One service process."""

    def __init__(self, name: str, listen: str, metrics: str, log: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.address = listen
        self.metrics = metrics
        self.log = log
        with log.open("ab") as output:
            command = [sys.executable, "-m", f"services.{name}"]
            self._process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def memory(self) -> int:
        """Bytes that it holds in memory."""
        return int(psutil.Process(self.pid).memory_info().rss)

    async def serves(self) -> None:
        """Waits until it says that it serves."""
        async with grpc.aio.insecure_channel(self.address) as channel:
            stub: Any = HealthStub(channel)
            async with asyncio.timeout(START_S):
                while True:
                    if not self.alive:
                        msg = f"{self.name} ended: {self.log.read_text(encoding='utf-8')[-2000:]}"
                        raise RuntimeError(msg)
                    try:
                        if (await stub.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING:
                            return
                    except grpc.aio.AioRpcError:
                        await asyncio.sleep(0.05)

    async def ended(self) -> int:
        """Waits for its end; its exit code."""
        return await asyncio.to_thread(self._process.wait, START_S)

    async def stop(self) -> None:
        """Ends it as an operator would."""
        self._process.terminate()
        try:
            await self.ended()
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise


class ProcessCluster(Cluster):
    """A cluster whose services are processes of their own; `cluster.processes` has them."""

    @property
    def processes(self) -> list[RunningProcess]:
        """All that were started and not stopped."""
        return [process for running in self.replicas.values() for process in running]  # type: ignore[misc]

    async def start(self, name: str, **changes: object) -> Any:
        """Starts one (more) replica of a service; returns when it serves."""
        process = self.launch(name, **changes)
        self.replicas.setdefault(name, []).append(process)  # type: ignore[arg-type]
        await process.serves()
        return process

    def launch(self, name: str, **changes: object) -> RunningProcess:
        """Starts a process and does not wait for it: whoever expects it to fail looks at how it ends."""
        listen = f"{LOOPBACK}:{free_port()}"
        metrics = f"{LOOPBACK}:{free_port()}"
        settings = {
            **self._settings_of(name),
            "listen": listen,
            "metrics_listen": metrics,
            **self._settings.get(name, {}),
            **changes,
        }
        number = next(_numbers)
        return RunningProcess(
            name, str(settings["listen"]), metrics, self._directory / f"{name}-{number}.log", environment_of(settings)
        )
