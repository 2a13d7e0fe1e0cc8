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

import psycopg
from psycopg import sql

from deploy.local.postgres import Postgres
from deploy.local.valkey import Valkey
from servicekit.postgres import migrate

ALL_SERVICES = ("auth", "registry", "scheduler", "cron")
# Comma-separated names: only these services are migrated and started. For working on one of them.
ONLY_VARIABLE = "COLONIES_TEST_SERVICES"


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
def open_directory() -> Iterator[Path]:
    """A directory that the account of the embedded servers may walk through; pytest's own is closed under root."""
    path = Path(tempfile.mkdtemp(prefix="colonies-test-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A Postgres that does not sync to disk."""
    with open_directory() as directory, Postgres(directory / "postgres", durable=False) as server:
        yield server


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
        self._template = f"template_{uuid.uuid4().hex[:12]}"
        self._execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(self._template)))
        asyncio.run(_migrate_all(server.url(self._template)))

    @contextmanager
    def fresh(self, *, migrated: bool = True) -> Iterator[str]:
        """The URL of a database of its own."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        template = self._template if migrated else "template1"
        # Copied as files, without a trip through the log, which nobody would read here.
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY")
        self._execute(statement.format(sql.Identifier(name), sql.Identifier(template)))
        yield self._server.url(name)
        # Only the superuser may end an autovacuum worker, which is in the way now and then.
        drop = sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
        self._execute(drop, url=self._server.superuser_url("postgres"))

    def _execute(self, statement: sql.Composed, *, url: str = "") -> None:
        with psycopg.connect(url or self._server.url("postgres"), autocommit=True) as connection:
            connection.execute(statement)
