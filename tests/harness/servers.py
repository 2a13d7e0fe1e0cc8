"""The embedded Postgres and Valkey of a test session, and one fresh database for each test."""

import asyncio
import importlib.util
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

import psutil
import psycopg
from psycopg import sql

from deploy.local.postgres import ROLE, Postgres
from deploy.local.valkey import Valkey
from servicekit.postgres import migrate

ALL_SERVICES = ("auth", "registry", "scheduler", "cron")
# Comma-separated names: only these services are migrated and started. For working on one of them.
ONLY_VARIABLE = "COLONIES_TEST_SERVICES"
_MEMORY = Path("/dev/shm")
_MEMORY_NEEDED = 2 << 30  # the log may grow to one, and each of some databases at a time has a hundredth


def present_services() -> tuple[str, ...]:
    """The services that there are, in the order in which they can be started: each needs those before it."""
    return tuple(takewhile(lambda name: _is_there(name, "__main__"), ALL_SERVICES))


def schemas() -> tuple[str, ...]:
    """The services that keep something in Postgres; their schemas have their names."""
    return tuple(name for name in ALL_SERVICES if _is_there(name, "store") and _is_there(name, "store.migrations"))


def _is_there(service: str, module: str) -> bool:
    chosen = os.environ.get(ONLY_VARIABLE, "")
    if chosen and service not in chosen.split(","):
        return False
    package = f"services.{service}"
    return importlib.util.find_spec(package) is not None and importlib.util.find_spec(f"{package}.{module}") is not None


@contextmanager
def open_directory(parent: Path | None = None) -> Iterator[Path]:
    """A directory that the account of the embedded servers may walk through; pytest's own is closed under root."""
    path = Path(tempfile.mkdtemp(prefix="colonies-test-", dir=parent))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def _in_memory() -> Path | None:
    """Where files are kept in memory, if there is enough of it.

    A database for each test is some 500 files to make and to delete: a fiftieth of a second there, a fifth on a disk.
    """
    try:
        roomy = shutil.disk_usage(_MEMORY).free >= _MEMORY_NEEDED
    except OSError:
        return None
    return _MEMORY if roomy and psutil.virtual_memory().available >= 2 * _MEMORY_NEEDED else None


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A Postgres that does not sync to disk, in memory where that can be: for tests that do not kill it."""
    with open_directory(_in_memory()) as directory, Postgres(directory / "postgres", durable=False) as server:
        _make_quick_to_enter(server)
        yield server


def _make_quick_to_enter(server: Postgres) -> None:
    """Proofs of the password in one round: 4 096 are most of what a connection costs its client, and are here for nothing."""
    password = psycopg.conninfo.conninfo_to_dict(server.url())["password"]
    with psycopg.connect(server.superuser_url("postgres"), autocommit=True) as connection:
        connection.execute("SET scram_iterations = 1")
        connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(ROLE), sql.Literal(password)))


@contextmanager
def running_valkey() -> Iterator[Valkey]:
    """A Valkey."""
    with open_directory() as directory, Valkey(directory / "valkey") as server:
        yield server


async def _migrate_all(url: str) -> None:
    for name in schemas():
        await migrate(url, name, f"services.{name}.store.migrations")


class Databases:
    """Databases with every service's schema, cloned from one that was migrated once."""

    def __init__(self, server: Postgres) -> None:
        self._server = server
        # One for all tests, as to prove a password takes longer than all else about a connection. A superuser's: only it may
        # end an autovacuum worker, which is in the way of a DROP DATABASE now and then.
        self._connection = psycopg.connect(server.superuser_url("postgres"), autocommit=True)
        self._template = f"template_{uuid.uuid4().hex[:12]}"
        self._create(self._template, "template1")
        asyncio.run(_migrate_all(server.url(self._template)))

    @contextmanager
    def fresh(self, *, migrated: bool = True) -> Iterator[str]:
        """The URL of a database of its own."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        self._create(name, self._template if migrated else "template1")
        yield self._server.url(name)
        self._connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def close(self) -> None:
        """Makes no more databases."""
        self._connection.close()

    def _create(self, name: str, template: str) -> None:
        # Copied as files, without a trip through the log, which nobody would read here.
        statement = sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE {} STRATEGY FILE_COPY")
        self._connection.execute(statement.format(sql.Identifier(name), sql.Identifier(ROLE), sql.Identifier(template)))
