"""What later protos must not break is really refused: `buf breaking`, as `make lint` runs it, over mutated copies."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

ROOT = Path(__file__).resolve().parents[2]
BUF = ROOT / "node_modules" / ".bin" / "buf"
# Of the last release, and of the first.
BASELINE = ROOT / "protos" / "baseline.binpb"
FIRST = ROOT / "tests" / "contract" / "old_client" / "first_release.binpb"
IMAGES = (BASELINE, FIRST)
SECONDS = 120

SCHEDULER = "scheduler/v1/scheduler_service.proto"
AUTH = "auth/v1/auth_service.proto"
PROCESS = "scheduler/v1/process.proto"

Copy = Callable[[str, str, str], None]


def buf(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs buf there."""
    assert BUF.exists(), "buf is not installed: npm install (make lint does)"
    command = [str(BUF), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False)


def services_of(image: Path) -> dict[str, set[str]]:
    """Services and their methods."""
    files = FileDescriptorSet.FromString(image.read_bytes()).file
    return {f"{file.package}.{one.name}": {each.name for each in one.method} for file in files for one in file.service}


@pytest.fixture
def protos(tmp_path: Path) -> Path:
    """A copy of the protos that may be changed."""
    shutil.copytree(ROOT / "protos", tmp_path / "protos")
    shutil.copy(ROOT / "buf.yaml", tmp_path)
    return tmp_path


def edit(folder: Path, file: str, before: str, after: str) -> None:
    """Changes one place."""
    path = folder / "protos" / "colonies" / file
    text = path.read_text(encoding="utf-8")
    assert text.count(before) == 1, (file, before)
    path.write_text(text.replace(before, after), encoding="utf-8")


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.stem)
def test_todays_protos_break_nothing(protos: Path, image: Path) -> None:
    done = buf(protos, "breaking", "--against", str(image))
    assert done.returncode == 0, done.stdout + done.stderr


BREAKING = {
    "a field is gone": (AUTH, "  string colony_name = 1;\n  // At most this many", "  // At most this many", "colony_name"),
    "a field has another number": (SCHEDULER, "  int32 max_processes = 2;", "  int32 max_processes = 9;", "max_processes"),
    "a field has another type": (SCHEDULER, "  int32 max_processes = 2;", "  string max_processes = 2;", "max_processes"),
    "a field has another name": (SCHEDULER, "  int32 max_processes = 2;", "  int32 most_processes = 2;", "most_processes"),
    "a field is one of many": (SCHEDULER, "  int32 max_processes = 2;", "  repeated int32 max_processes = 2;", "max_processes"),
    "a method is gone": (SCHEDULER, "  rpc Heartbeat(HeartbeatRequest) returns (HeartbeatResponse);\n", "", "Heartbeat"),
    "a method has another request": (
        SCHEDULER,
        "rpc Heartbeat(HeartbeatRequest)",
        "rpc Heartbeat(GetProcessRequest)",
        "Heartbeat",
    ),
    "a method streams": (
        SCHEDULER,
        "rpc Heartbeat(HeartbeatRequest) returns (HeartbeatResponse)",
        "rpc Heartbeat(HeartbeatRequest) returns (stream HeartbeatResponse)",
        "Heartbeat",
    ),
    "a service has another name": (AUTH, "service AuthService {", "service MemberService {", "AuthService"),
    "a package has another name": (AUTH, "package colonies.auth.v1;", "package colonies.auth.v2;", "colonies.auth"),
    "a value of an enum is gone": (PROCESS, "  PROCESS_STATE_WAITING = 1;", "  reserved 1;", "ProcessState"),
}


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.stem)
@pytest.mark.parametrize("change", BREAKING)
def test_a_change_that_breaks_clients_is_refused(protos: Path, change: str, image: Path) -> None:
    file, before, after, named = BREAKING[change]
    edit(protos, file, before, after)
    done = buf(protos, "breaking", "--against", str(image))
    assert done.returncode == 100, done.stdout + done.stderr
    assert named in done.stdout


def test_a_file_that_is_gone_is_refused(protos: Path) -> None:
    (protos / "protos" / "colonies" / "cron" / "v1" / "cron_service.proto").unlink()
    done = buf(protos, "breaking", "--against", str(BASELINE))
    assert done.returncode == 100
    assert "cron_service.proto" in done.stdout


def test_what_is_added_breaks_nothing(protos: Path) -> None:
    edit(protos, SCHEDULER, "  int32 max_processes = 2;", "  int32 max_processes = 2;\n  // New.\n  string new_field = 99;")
    rpc = "  rpc Heartbeat(HeartbeatRequest) returns (HeartbeatResponse);\n"
    edit(protos, SCHEDULER, rpc, rpc + "  // New.\n  rpc Another(HeartbeatRequest) returns (HeartbeatResponse);\n")
    done = buf(protos, "breaking", "--against", str(BASELINE))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_baseline_is_a_release_of_every_service() -> None:
    """One that lacks a service, or all of them, would let everything pass."""
    first, baseline = services_of(FIRST), services_of(BASELINE)
    assert {name.split(".")[1] for name in first} == {"auth", "registry", "scheduler", "cron"}
    assert sum(map(len, first.values())) >= 56
    for service, methods in first.items():
        assert methods <= baseline[service]


def test_the_last_release_did_not_break_the_first(tmp_path: Path) -> None:
    done = buf(tmp_path, "breaking", str(BASELINE), "--against", str(FIRST), "--config", str(ROOT / "buf.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr
