"""What is secret stays so: it shows in no log, error, metric or process list, whatever goes wrong; and files that hold it are closed."""

import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import pytest_asyncio
from pydantic import ValidationError

from colonies.auth.v1 import auth_service_pb2 as pb
from colonies.errors import KeyFileError
from colonies.keys import PrivateKey
from deploy.local.errors import StackError
from deploy.local.files import secret
from servicekit.settings import ServiceSettings
from tests.harness.calls import refusal
from tests.harness.keys import key_of
from tests.harness.processes import LOOPBACK, ProcessCluster, RunningProcess
from tests.harness.servers import ALL_SERVICES

from .wire import Wire, signed

METHOD = "/colonies.auth.v1.AuthService/GetServerInfo"
# Long enough that no text has it by chance, and without what a URL would spell differently.
PASSWORD = "b7Zk2wQ9xV4mT8sR1pL6nC3d"


@pytest_asyncio.fixture
async def running(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[ProcessCluster]:
    """Service processes that tell of everything that they do."""
    settings: dict[str, dict[str, object]] = {name: {"log_level": "debug"} for name in ALL_SERVICES}
    async with ProcessCluster(database_url, redis_url, tmp_path, settings=settings) as cluster:
        yield cluster


def secrets_of(cluster: ProcessCluster, *urls: str) -> dict[str, str]:
    """What nobody may find, by what it is."""
    keys = {f"key of {name}": cluster.keys.service(name).hex for name in ALL_SERVICES}
    callers = {f"key of {name}": key.hex for name, key in (("alice", cluster.keys.user), ("the owner", cluster.keys.owner))}
    passwords = {f"password in {urlsplit(url).scheme}": urlsplit(url).password or "" for url in urls}
    found = {**keys, **callers, **passwords, "wrong password": PASSWORD}
    assert all(len(value) >= 20 for value in found.values())
    return found


def texts_of(processes: list[RunningProcess]) -> Iterator[tuple[str, str]]:
    """Everything that others can read: logs, metrics, and the command lines of all that runs on this machine."""
    for process in processes:
        yield f"log of {process.name}", process.log.read_text(encoding="utf-8")
        if process.alive:
            # Never through a proxy: this is a call to this machine.
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(f"http://{process.metrics}/metrics", timeout=5) as answer:
                yield f"metrics of {process.name}", answer.read().decode()
    for one in psutil.process_iter(["cmdline"]):
        yield f"command line of {one.pid}", " ".join(one.info["cmdline"] or ())


def nothing_of(secrets: Mapping[str, str], texts: Iterator[tuple[str, str]]) -> None:
    """Fails the test if a text has a secret in it. Says which and where, not the secret itself."""
    leaks = [
        f"{what} in the {where}" for where, text in texts for what, value in secrets.items() if value.lower() in text.lower()
    ]
    assert leaks == []


async def knock(cluster: ProcessCluster) -> None:
    """Calls that go well and calls that are refused, of all kinds."""
    good = signed(cluster, cluster.keys.user, METHOD, pb.GetServerInfoRequest())
    await good.send(cluster)
    for bad in (good, good.altered(body=b"\x00"), Wire(METHOD, (), b""), signed(cluster, key_of("x"), METHOD, b"\xff" * 40)):
        await refusal(bad.send(cluster))
    with_key = good.altered(headers=(*good.headers, ("x-request-id", cluster.keys.user.identity)))
    await refusal(with_key.send(cluster))


@pytest.mark.asyncio
async def test_nothing_secret_shows_while_services_run_fail_and_crash(
    running: ProcessCluster, database_url: str, redis_url: str
) -> None:
    secrets = secrets_of(running, database_url, redis_url)
    await knock(running)
    pg, rd = urlsplit(database_url), urlsplit(redis_url)
    failing = []
    for changes in (
        {"postgres_url": f"postgresql://{pg.username}:{PASSWORD}@{LOOPBACK}:{pg.port}{pg.path}"},
        # A password that would have to be written with %2F: taken apart as it stands, it is a port.
        {"postgres_url": f"postgresql://{pg.username}:{PASSWORD}/x@{LOOPBACK}/colonies"},
        {"redis_url": f"redis://:{PASSWORD}/x@{LOOPBACK}:{rd.port}"},
        {
            "postgres_connections": PASSWORD,
            "cluster": f"{PASSWORD} x",
            "service_identities": f"auth={running.keys.owner.hex[:-1]}",
        },
    ):
        process = running.launch("auth", **changes)
        failing.append(process)
        assert await process.ended() in {1, 2}
        assert process.log.stat().st_size, "it ended without a word"
    # This one runs, and can do nothing: its password for Redis is wrong.
    crashing = await running.start("auth", redis_url=f"redis://:{PASSWORD}@{rd.hostname}:{rd.port}")
    good = signed(running, running.keys.user, METHOD, pb.GetServerInfoRequest())
    await refusal(good.send(running, replica=1))
    nothing_of(secrets, texts_of([*running.processes, *failing]))
    os.kill(crashing.pid, signal.SIGABRT)
    await crashing.ended()
    nothing_of(secrets, texts_of([*running.processes, *failing]))
    running.replicas["auth"].remove(crashing)


BAD_URLS = (
    ("postgres_url", f"postgresql://colonies:{PASSWORD}/x@localhost/colonies"),
    ("postgres_url", f"postgresql://colonies:{PASSWORD}@[::1/colonies"),
    ("postgres_url", f"password={PASSWORD} host=localhost"),
    ("postgres_url", PASSWORD),
    ("redis_url", f"redis://:{PASSWORD}/x@localhost"),
    ("redis_url", f"redis://localhost:{PASSWORD}"),
    ("redis_url", PASSWORD),
)


@pytest.mark.parametrize(("name", "url"), BAD_URLS)
def test_an_ill_formed_url_is_told_of_without_what_is_in_it(name: str, url: str) -> None:
    """What takes such a URL apart would tell of the piece that it stumbled over, which may be the password."""
    good = {
        "cluster": "c", "listen": "127.0.0.1:0", "postgres_url": "postgresql://a:b%2Fc@localhost:1/d", "redis_url": "redis://:b%40c@localhost",
        "server_owner": "0" * 64, "service_key_file": "key", "service_identities": "",
    }  # fmt: skip
    ServiceSettings.model_validate(good)
    with pytest.raises(ValidationError) as caught:
        ServiceSettings.model_validate({**good, name: url})
    (problem,) = caught.value.errors()
    assert problem["loc"] == (name,)
    assert PASSWORD not in problem["msg"]


def run(directory: Path, *arguments: str, **environment: str) -> str:
    """What a command says, on both of its outputs."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("COLONIES_")}
    config = {"COLONIES_CONFIG": str(directory / "profiles.toml")}
    done = subprocess.run(
        [sys.executable, "-c", "from colonies.cli import main; main()", *arguments], env={**plain, **config, **environment}, capture_output=True, text=True, timeout=60, check=False
    )  # fmt: skip
    return done.stdout + done.stderr


def test_the_command_line_never_shows_a_key(tmp_path: Path) -> None:
    key = PrivateKey.generate()
    file = tmp_path / "user.key"
    key.save(file)
    listing = ("process", "list")
    target = {"COLONIES_HOST": LOOPBACK, "COLONIES_PORT": "1", "COLONIES_CLUSTER": "c", "COLONIES_COLONY": "acme"}
    said = [
        run(tmp_path, *listing, COLONIES_KEY=key.hex, **target),
        run(tmp_path, *listing, COLONIES_KEY=f"{key.hex}00", **target),
        run(tmp_path, *listing, COLONIES_KEY=f"z{key.hex[1:]}", **target),
        run(tmp_path, "profile", "show", COLONIES_KEY=key.hex, **target),
        run(tmp_path, "sign", "auth.GetServerInfo", COLONIES_KEY=key.hex, **target),
        run(tmp_path, *listing, COLONIES_KEY_FILE=str(file), **target),
        run(tmp_path, *listing, COLONIES_KEY_FILE=key.hex[:-1], **target),
    ]
    (tmp_path / "profiles.toml").write_text(f'default = "x"\n[profiles.x]\nhost = "{LOOPBACK}"\nkey = "{key.hex}"\n')
    said.append(run(tmp_path, *listing))
    file.write_text(key.hex[:-1] + "\n")
    said.append(run(tmp_path, *listing, COLONIES_KEY_FILE=str(file), **target))
    assert all(text.strip() and "Traceback" not in text and "No module" not in text for text in said)
    # A path is shown as it was given: that one was no secret but to look like it.
    assert [index for index, text in enumerate(said) if key.hex[1:-1] in text] == [6]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o610, 0o666])
def test_files_that_others_can_read_are_refused(tmp_path: Path, mode: int) -> None:
    key_file, password_file = tmp_path / "user.key", tmp_path / "password"
    PrivateKey.generate().save(key_file)
    assert secret(password_file) == secret(password_file)
    for path, read, error in ((key_file, PrivateKey.load, KeyFileError), (password_file, secret, StackError)):
        reading: Any = read
        assert path.stat().st_mode & 0o777 == 0o600
        reading(path)
        path.chmod(mode)
        with pytest.raises(error, match="chmod 600"):
            reading(path)


@pytest.mark.asyncio
async def test_a_service_does_not_start_with_a_key_that_others_can_read(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    cluster = ProcessCluster(database_url, redis_url, tmp_path, services=("auth",))
    process = cluster.launch("auth")
    await process.serves()
    await process.stop()
    (tmp_path / "auth.key").chmod(0o640)
    again = cluster.launch("auth")
    assert await again.ended() == 1
    assert "chmod 600" in again.log.read_text(encoding="utf-8")
