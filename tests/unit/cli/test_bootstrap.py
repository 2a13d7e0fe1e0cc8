"""What makes a fresh stack usable, and the commands of the local stack, with the stack itself replaced."""

import getpass
import json
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from colonies.auth.v1 import auth_service_pb2 as auth
from colonies.cli import bootstrap, stack
from colonies.cli.bootstrap import Address, KeyFiles
from colonies.cli.failure import CliError, ExitCode
from colonies.keys import PrivateKey, identity_of
from colonies.profile import active

from .conftest import FakeServer, Refusal, Shell

AUTH = "/colonies.auth.v1.AuthService/"


@dataclass
class Members:
    """An auth service that remembers."""

    owners: dict[str, str] = field(default_factory=dict)
    users: dict[str, str] = field(default_factory=dict)

    def add_colony(self, request: auth.AddColonyRequest) -> auth.AddColonyResponse:
        owner = identity_of(request.owner.public_key)
        if self.owners.setdefault(request.name, owner) != owner:
            raise Refusal(grpc.StatusCode.ALREADY_EXISTS, "the name is in use")
        return auth.AddColonyResponse()

    def add_user(self, request: auth.AddUserRequest) -> auth.AddUserResponse:
        identity = identity_of(request.user.public_key)
        others = {known: name for name, known in self.users.items()}
        if self.users.get(request.name, identity) != identity or others.get(identity, request.name) != request.name:
            raise Refusal(grpc.StatusCode.ALREADY_EXISTS, "another user has the name, or the identity is a member already")
        self.users[request.name] = identity
        return auth.AddUserResponse()

    def list_users(self, _: auth.ListUsersRequest) -> auth.ListUsersResponse:
        return auth.ListUsersResponse(users=[auth.User(name=name, identity=each) for name, each in self.users.items()])


@pytest.fixture
def members(server: FakeServer) -> Members:
    remembering = Members()
    server.on(AUTH + "AddColony", auth.AddColonyRequest, remembering.add_colony)
    server.on(AUTH + "AddUser", auth.AddUserRequest, remembering.add_user)
    server.on(AUTH + "ListUsers", auth.ListUsersRequest, remembering.list_users)
    info = auth.GetServerInfoResponse(version="1.2.3", cluster="test")
    server.on(AUTH + "GetServerInfo", auth.GetServerInfoRequest, lambda _: info)
    return remembering


@pytest.fixture
def files(tmp_path: Path) -> KeyFiles:
    made = KeyFiles.in_data_dir(tmp_path / "data")
    PrivateKey.generate().save(made.server_owner)
    return made


@pytest.mark.asyncio
async def test_a_colony_is_made_once(server: FakeServer, members: Members, files: KeyFiles) -> None:
    address = Address("127.0.0.1", server.port, "test")
    for _ in range(2):
        await bootstrap.ensure_colony(address, "dev", files, user="ann")
    assert members.owners == {"dev": PrivateKey.load(files.colony_owner).identity}
    assert members.users == {"ann": PrivateKey.load(files.user).identity}
    # The same key under another account name is the same user.
    await bootstrap.ensure_colony(address, "dev", files, user="bob")
    assert list(members.users) == ["ann"]


@pytest.mark.asyncio
async def test_a_colony_of_somebody_else_is_named(server: FakeServer, members: Members, files: KeyFiles) -> None:
    members.owners["dev"] = "0" * 64
    with pytest.raises(CliError, match="is not its owner's key"):
        await bootstrap.ensure_colony(Address("127.0.0.1", server.port, "test"), "dev", files, user="ann")


@pytest.mark.asyncio
async def test_a_user_with_another_key_is_named(server: FakeServer, members: Members, files: KeyFiles) -> None:
    members.users["ann"] = "0" * 64
    with pytest.raises(CliError, match="another user 'ann'"):
        await bootstrap.ensure_colony(Address("127.0.0.1", server.port, "test"), "dev", files, user="ann")


@pytest.mark.parametrize(
    ("account", "name"),
    [("ann", "ann"), ("DOM\\ann b", "DOM-ann-b"), ("_x", "u_x"), ("", "u"), ("ö" * 200, "u" + "-" * 127)],
)
def test_user_names_are_names(monkeypatch: pytest.MonkeyPatch, account: str, name: str) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: account)
    assert bootstrap.user_name() == name


@pytest.mark.parametrize(
    ("listening", "host"), [("127.0.0.1:7", "127.0.0.1"), ("0.0.0.0:7", "127.0.0.1"), ("localhost:7", "localhost")]
)
def test_the_address_to_connect_to(listening: str, host: str) -> None:
    address = Address.of(SimpleNamespace(address=listening, cluster_id="c", ca_file=""))
    assert address == Address(host, 7, "c")


class FakeControl:
    """Stands in for deploy.local.control."""

    class StackError(Exception):
        """As deploy.local.errors.StackError."""

        log = Path("/logs/envoy.log")
        log_tail = "last line\n"

        def __init__(self, message: str) -> None:
            super().__init__(message)
            self.message = message

    def __init__(self, port: int, folder: Path) -> None:
        self.told = threading.Event()
        self.state = SimpleNamespace(
            url="http://127.0.0.1:50080/",
            address=f"127.0.0.1:{port}",
            cluster_id="test",
            data_dir=str(folder),
            pid=1,
            already_running=False,
            ca_file="",
            identities={},
        )
        self.asked: list[Any] = []
        self.error = ""

    @staticmethod
    def StackSettings(**settings: Any) -> Any:
        return settings

    def default_data_dir(self) -> Path:
        return Path(self.state.data_dir)

    def up(self, settings: Any, *, detach: bool, on_progress: Callable[[str], None]) -> Any:
        if self.error:
            raise FakeControl.StackError(self.error)
        self.asked.append((settings, detach))
        on_progress("envoy is up")
        on_progress(f"listening on {self.state.address}")
        if not detach:
            self.told.wait(30)  # in the foreground it runs until it is interrupted: here, until it was set up
        return self.state

    def down(self, _data_dir: Path, *, on_progress: Callable[[str], None]) -> bool:
        on_progress("stopping")
        return True

    def status(self, _data_dir: Path) -> Any:
        one = SimpleNamespace(name="auth", pid=2, alive=True, healthy=True, restarts=0, port=3)
        return SimpleNamespace(running=True, healthy=True, state=self.state, processes=[one])


@pytest.fixture
def control(server: FakeServer, members: Members, files: KeyFiles, monkeypatch: pytest.MonkeyPatch) -> FakeControl:
    assert members.users == {}
    fake = FakeControl(server.port, files.user.parent.parent)
    monkeypatch.setitem(sys.modules, "deploy.local.control", fake)
    return fake


def test_up_makes_the_stack_usable(offline: Shell, control: FakeControl, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOST", "PORT", "CLUSTER", "COLONY", "KEY", "KEY_FILE", "PROFILE"):
        monkeypatch.delenv(f"COLONIES_{name}", raising=False)
    result = offline("up", "--port", "1234", "--replicas", "scheduler=2", "--replicas", "gateway=3")
    assert result.exit_code == 0, result.output
    ((settings, detach),) = control.asked
    assert detach
    assert (settings["port"], settings["replicas"]) == (1234, {"scheduler": 2, "gateway": 3})
    assert "host" not in settings
    assert "envoy is up" in result.stderr
    assert "colonies demo" in result.stdout
    monkeypatch.setenv("COLONIES_CONFIG", offline.env["COLONIES_CONFIG"])
    profile = active()
    assert (profile.name, profile.colony, profile.cluster) == ("local", "dev", "test")
    again = offline("--json", "up")
    assert json.loads(again.stdout)["profile"] == "local"
    status = offline.json("status")
    assert status["server"]["version"] == "1.2.3"
    assert status["local"]["processes"][0]["name"] == "auth"
    assert "healthy" in offline("status").stdout.lower()


@pytest.mark.parametrize(
    "text",
    [
        "scheduler",
        "=2",
        "scheduler=",
        "scheduler=two",
        "scheduler=-1",
        "scheduler=1.5",
        "scheduler=²",
        f"scheduler={'9' * 5000}",
    ],
)
def test_replicas_that_are_no_count_are_refused(offline: Shell, control: FakeControl, text: str) -> None:
    result = offline("up", "--replicas", text)
    assert result.exit_code == ExitCode.USAGE
    assert "--replicas" in result.stderr
    assert control.asked == []


def test_up_in_the_foreground_is_made_usable_once_it_listens(
    offline: Shell, control: FakeControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell = stack._tell_up

    def telling(*arguments: Any) -> None:
        tell(*arguments)
        control.told.set()

    monkeypatch.setattr(stack, "_tell_up", telling)
    result = offline("up", "--foreground")
    assert result.exit_code == 0, result.output
    assert [detach for _, detach in control.asked] == [False, True]
    assert "the server has ended" in result.stderr
    assert 'The profile "local"' in result.stdout
    assert offline.json("profile", "show")["name"] == "local"


def test_a_stack_that_does_not_come_up_is_one_line_and_its_log(offline: Shell, control: FakeControl) -> None:
    control.error = "port 50080 is taken"
    result = offline("up")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == ["error: port 50080 is taken", "  log: /logs/envoy.log", "  last line"]


def test_down(offline: Shell, control: FakeControl) -> None:
    assert control.asked == []
    assert offline("down").stdout == "the server is stopped\n"
    assert offline.json("down")["stopped"] is True


def test_without_the_server_part(offline: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deploy.local.control", None)
    for command in ("up", "down", "demo"):
        result = offline(command)
        assert result.exit_code == 1
        assert result.stderr == "error: this needs the server part: pip install 'colonies[server]'\n"
