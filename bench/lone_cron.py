"""One process of the cron service beside the stack's own, with tables and a Valkey database for itself: its use is its own."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import redis

from bench.failure import BenchError
from bench.installation import Installation
from deploy.local.health import HealthProbe
from deploy.local.ports import LOOPBACK, free_port

UP_S = 60.0
LOOK_S = 0.1
STOP_S = 20.0


@dataclass(frozen=True, slots=True)
class Uses:
    """What a process used: percent of one processor (user and system), and a second commands and transactions."""

    processor: float
    commands: float
    transactions: float


class LoneCron:
    """The process."""

    def __init__(
        self, pid: int, database: str, postgres: "psycopg.Connection[tuple[object, ...]]", valkey: redis.Redis
    ) -> None:
        self._pid = pid
        self._database = database
        self._postgres = postgres
        self._valkey = valkey
        self._number = valkey.connection_pool.connection_kwargs["db"]

    def use(self, seconds: float) -> Uses:
        """What it uses in so many seconds."""
        begin, before = time.monotonic(), self._counters()
        time.sleep(seconds)
        after, took = self._counters(), time.monotonic() - begin
        processor, commands, transactions = ((now - then) / took for now, then in zip(after, before, strict=True))
        return Uses(100 * processor, commands, transactions)

    def _counters(self) -> tuple[float, int, int]:
        return self._processor_s(), self._commands(), self._transactions()

    def _processor_s(self) -> float:
        # Of each thread, in nanoseconds: the process's own times come in hundredths of a second.
        threads = Path(f"/proc/{self._pid}/task").glob("*/schedstat")
        return sum(int(thread.read_text(encoding="ascii").split()[0]) for thread in threads) / 1e9

    def _commands(self) -> int:
        """Of its connections: nobody else uses this database, but for who asks."""
        asks = str(self._valkey.client_id())
        clients = self._valkey.client_list()
        return sum(int(one["tot-cmds"]) for one in clients if one["db"] == str(self._number) and one["id"] != asks)

    def _transactions(self) -> int:
        query = "SELECT xact_commit FROM pg_stat_database WHERE datname = %s"
        row = self._postgres.execute(query, [self._database]).fetchone()
        if row is None:
            msg = f"there is no database {self._database}"
            raise BenchError(msg)
        return int(str(row[0]))


@contextmanager
def lone_cron(stack: Installation, postgres_url: str, number: int) -> Iterator[LoneCron]:
    """Runs one, as the stack runs its own, on another database of Postgres and that of this number in Valkey.

    Raises:
        BenchError: it does not come up.
    """
    redis_url = f"{stack.redis_url.rpartition('/')[0]}/{number}"
    listen = f"{LOOPBACK}:{free_port()}"
    environment = {
        **stack.environment_of("cron"),
        "COLONIES_POSTGRES_URL": postgres_url,
        "COLONIES_REDIS_URL": redis_url,
        "COLONIES_LISTEN": listen,
        "COLONIES_METRICS_LISTEN": "",
    }
    with (
        tempfile.TemporaryFile() as log,
        psycopg.connect(stack.postgres_url, autocommit=True) as postgres,
        redis.Redis.from_url(redis_url, decode_responses=True) as valkey,
    ):
        process = subprocess.Popen([sys.executable, "-P", "-m", "services.cron"], env=environment, stdout=log, stderr=log)
        try:
            _wait(process, listen)
            yield LoneCron(process.pid, urlsplit(postgres_url).path.lstrip("/"), postgres, valkey)
        finally:
            process.terminate()
            process.wait(STOP_S)
            valkey.flushdb()


def _wait(process: "subprocess.Popen[bytes]", listen: str) -> None:
    probe = HealthProbe(listen)
    until = time.monotonic() + UP_S
    try:
        while not probe.serving():
            if process.poll() is not None or time.monotonic() > until:
                msg = "a cron service beside the stack's does not come up"
                raise BenchError(msg)
            time.sleep(LOOK_S)
    finally:
        probe.close()
