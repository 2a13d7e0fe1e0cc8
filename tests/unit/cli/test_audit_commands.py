"""`colonies audit export|verify|show`: files from a server of canned answers, and without any server."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from colonies.cli.failure import ExitCode
from colonies.keys import PrivateKey
from colonies.profile import Profile, save_profile
from colonies.scheduler.v1 import audit_pb2 as pb
from deploy.local.state import StackState
from tests.audit.author import CLUSTER, COLONY, Author
from tests.audit.stories import failed, plain

from .answers import SCHEDULER
from .conftest import FakeServer, Refusal, Shell


@pytest.fixture(params=[False, True], ids=["protobuf", "json"])
def author(request: pytest.FixtureRequest) -> Author:
    author = Author(in_json=request.param)
    plain(author)
    failed(author)
    return author


def _trust(author: Author) -> list[str]:
    return ["--sealer", author.scheduler.identity, "--owner", author.owner.identity]


def _asked(shell: Shell, author: Author, **scope: object) -> bytes:
    """The file that this shell asks for."""
    records = author.records(**scope)
    records[0].update(cluster="test", asked_by=shell.key.identity)
    return author.file(records)


def _answers(server: FakeServer, *parts: bytes) -> None:
    server.on(
        SCHEDULER + "ExportAudit", pb.ExportAuditRequest, lambda _: [pb.ExportAuditResponse(lines=part) for part in parts]
    )


def _written(folder: Path, data: bytes) -> str:
    path = folder / "colony.audit"
    path.write_bytes(data)
    return str(path)


def test_export_writes_the_file_that_came(shell: Shell, server: FakeServer, author: Author) -> None:
    workflow = author.processes[0].workflow
    since_us, before_us = 1_699_999_200_000_000, int(datetime(2024, 1, 1).astimezone().timestamp()) * 1_000_000
    data = _asked(shell, author, workflow_ids=[workflow], since_us=since_us, before_us=before_us)
    _answers(server, data[:1000], b"", data[1000:])
    target = shell.folder / "colony.audit"
    target.write_text("an older one")
    result = shell(
        "audit",
        "export",
        "-o",
        str(target),
        "--since",
        "2023-11-14T22:00+00:00",
        "--workflow",
        workflow.upper(),
        "--before",
        "2024-01-01",
    )
    assert result.exit_code == 0, result.output
    assert target.read_bytes() == data
    assert target.stat().st_mode & 0o077 == 0
    assert author.scheduler.identity in result.stdout
    since = Timestamp(seconds=1_699_999_200)
    (request,) = server.requests
    # Without a zone it is local time.
    assert request.submitted_before.ToDatetime() == datetime(2024, 1, 1).astimezone(UTC).replace(tzinfo=None)
    request.ClearField("submitted_before")
    assert request == pb.ExportAuditRequest(colony_name="dev", workflow_ids=[workflow.upper()], submitted_since=since)


def test_export_to_standard_output(shell: Shell, server: FakeServer, author: Author) -> None:
    data = _asked(shell, author)
    _answers(server, data)
    assert shell("audit", "export", "-o", "-").stdout_bytes == data


def test_an_export_of_something_else_is_none(shell: Shell, server: FakeServer, author: Author) -> None:
    """Whatever the server seals: less than what was asked for, of another colony, or for somebody else."""
    for scope in ({"since_us": 1}, {"process_ids": [author.processes[0].id]}):
        _answers(server, _asked(shell, author, **scope))
        result = shell("audit", "export", "-o", str(shell.folder / "colony.audit"))
        assert (result.exit_code, "everything was asked for" in result.stderr) == (ExitCode.FAILED, True), result.output
    for name, value in (("colony", "other"), ("cluster", "other"), ("asked_by", author.user.identity)):
        records = author.records()
        records[0].update({"cluster": "test", "asked_by": shell.key.identity, name: value})
        _answers(server, author.file(records))
        result = shell("audit", "export", "-o", str(shell.folder / "colony.audit"))
        assert (result.exit_code, "not what it was asked for" in result.stderr) == (ExitCode.FAILED, True), result.output
        assert value in result.stderr
    assert not any("colony.audit" in path.name for path in shell.folder.iterdir())


def test_who_has_another_key_asks_as_who_it_was(shell: Shell, server: FakeServer, author: Author) -> None:
    author.rotate(author.user, shell.key)
    records = author.records()
    records[0].update(cluster="test", asked_by=author.user.identity)
    _answers(server, author.file(records))
    assert shell("audit", "export", "-o", "-").exit_code == 0


@pytest.mark.parametrize("cut", [0, 1, 500])
def test_an_export_without_its_seal_is_none(shell: Shell, server: FakeServer, author: Author, cut: int) -> None:
    data = author.file()
    _answers(server, data[:-500] if cut == 500 else data[: len(data) * cut - cut])
    target = shell.folder / "colony.audit"
    target.write_text("an older one")
    result = shell("audit", "export", "-o", str(target))
    assert (result.exit_code, "no intact audit file" in result.stderr) == (ExitCode.FAILED, True)
    assert target.read_text() == "an older one"
    assert [path.name for path in shell.folder.iterdir() if path.name.startswith(".colony")] == []


def test_a_refused_export_leaves_nothing(shell: Shell, server: FakeServer) -> None:
    def refuse(_: pb.ExportAuditRequest) -> list[pb.ExportAuditResponse]:
        raise Refusal(grpc.StatusCode.FAILED_PRECONDITION, "this server keeps no receipts")

    server.on(SCHEDULER + "ExportAudit", pb.ExportAuditRequest, refuse)
    result = shell("audit", "export", "-o", str(shell.folder / "colony.audit"))
    assert (result.exit_code, "no receipts" in result.stderr) == (ExitCode.CONFLICT, True)
    assert not any("colony.audit" in path.name for path in shell.folder.iterdir())


def test_an_export_that_breaks_off_is_not_put_together(shell: Shell, server: FakeServer, author: Author) -> None:
    def broken(_: pb.ExportAuditRequest) -> object:
        yield pb.ExportAuditResponse(lines=author.file()[:1000])
        raise Refusal(grpc.StatusCode.UNAVAILABLE, "gone")

    server.on(SCHEDULER + "ExportAudit", pb.ExportAuditRequest, broken)
    result = shell("audit", "export", "-o", str(shell.folder / "colony.audit"))
    assert result.exit_code == ExitCode.UNAVAILABLE, result.output
    assert "begin anew" in result.stderr
    assert len(server.requests) == 1


def test_verify_needs_nothing_but_the_file_and_whom_to_trust(offline: Shell, author: Author) -> None:
    path = _written(offline.folder, author.file())
    result = offline("audit", "verify", path, *_trust(author))
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "intact"
    assert "Processes" in result.stdout
    assert any(line.split() == ["Scope", "everything"] for line in result.stdout.splitlines()), result.stdout
    document = offline.json("audit", "verify", path, "--strict", *_trust(author))
    assert document["intact"]
    assert document["counts"]["processes"] == len(author.processes)
    assert document["scope"] == {"process_ids": [], "workflow_ids": [], "since_us": None, "before_us": None}
    assert document["sealed_by"] == author.scheduler.identity


def test_verify_names_what_is_wrong(offline: Shell, author: Author) -> None:
    path = _written(offline.folder, author.file().replace(b"no such file", b"no such fils", 1))
    result = offline("--json", "audit", "verify", path, *_trust(author))
    assert result.exit_code == ExitCode.FAILED
    (finding,) = json.loads(result.stdout)["findings"]
    line = next(n for n, text in enumerate(author.file().splitlines(), 1) if b'"errors":["no such file' in text)
    assert (finding["line"], finding["kind"]) == (line, "DAMAGED")
    assert author.processes[3].id in finding["where"]
    result = offline("audit", "verify", path, *_trust(author))
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (ExitCode.FAILED, "NOT INTACT")
    assert f"line {line}: event 3 of process {author.processes[3].id}" in result.stdout


def test_verify_against_an_earlier_file(offline: Shell, author: Author) -> None:
    earlier = offline.folder / "earlier.audit"
    earlier.write_bytes(author.file())
    del author.processes[0]
    path = _written(offline.folder, author.file())
    result = offline("audit", "verify", path, "--after", str(earlier), *_trust(author))
    assert (result.exit_code, "GONE" in result.stderr) == (ExitCode.OK, True)
    result = offline("audit", "verify", path, "--strict", "--after", str(earlier), *_trust(author))
    assert result.exit_code == ExitCode.FAILED
    assert offline("audit", "verify", path, "--after", path, *_trust(author)).exit_code == 0
    author.processes[0].events.pop()
    path = _written(offline.folder, author.file())
    result = offline("audit", "verify", path, "--after", str(earlier), *_trust(author))
    assert (result.exit_code, "HISTORY" in result.stdout) == (ExitCode.FAILED, True)


def test_strict_refuses_what_is_not_proven(offline: Shell, author: Author) -> None:
    author.memberships.clear()
    path = _written(offline.folder, author.file())
    result = offline("audit", "verify", path, *_trust(author))
    assert (result.exit_code, "not all of it is proven" in result.stdout) == (0, True)
    assert "NOT_PROVEN" in result.stderr
    assert offline("audit", "verify", path, "--strict", *_trust(author)).exit_code == ExitCode.FAILED


def test_without_anybody_to_trust_verify_says_so(offline: Shell, author: Author) -> None:
    path = _written(offline.folder, author.file())
    for given in ((), ("--data-dir", str(offline.folder / "nothing"))):
        result = offline("audit", "verify", path, *given)
        assert (result.exit_code, "--sealer IDENTITY" in result.stderr) == (ExitCode.USAGE, True), result.output
    for option in ("--sealer", "--owner", "--server-owner", "--cron"):
        assert offline("audit", "verify", path, option, "ann").exit_code == ExitCode.USAGE
    result = offline("audit", "verify", path, "--sealer", author.scheduler.identity)
    assert (result.exit_code, "--owner IDENTITY" in result.stderr) == (ExitCode.USAGE, True), result.output
    stranger = PrivateKey.generate().identity
    result = offline("audit", "verify", path, "--sealer", stranger, "--owner", author.owner.identity)
    assert (result.exit_code, "not among the trusted" in result.stdout) == (ExitCode.FAILED, True)


def test_the_profile_vouches_for_the_owner_alone(offline: Shell, author: Author, monkeypatch: pytest.MonkeyPatch) -> None:
    key_file = offline.folder / "owner.key"
    author.owner.key.save(key_file)
    monkeypatch.setenv("COLONIES_CONFIG", offline.env["COLONIES_CONFIG"])
    save_profile(Profile(name="p", cluster=CLUSTER, colony=COLONY, owner_key_file=str(key_file)))
    path = _written(offline.folder, author.file())
    result = offline("audit", "verify", path, "--data-dir", str(offline.folder / "nothing"))
    assert (result.exit_code, "--sealer IDENTITY" in result.stderr) == (ExitCode.USAGE, True)
    words = ("audit", "verify", path, "--data-dir", str(offline.folder / "nothing"), "--sealer", author.scheduler.identity)
    assert offline(*words).exit_code == 0
    # A key file on the command line makes nobody an owner.
    user_file = offline.folder / "user.key"
    author.user.key.save(user_file)
    assert offline("--key-file", str(user_file), *words).exit_code == 0
    # Nor does the owner's key seal.
    result = offline("audit", "verify", _written(offline.folder, author.file(sealed_by=author.owner.key)), *words[3:])
    assert (result.exit_code, "not among the trusted sealers" in result.stdout) == (ExitCode.FAILED, True)


def test_the_local_stack_vouches_for_its_own_cluster(offline: Shell, author: Author) -> None:
    folder = offline.folder / "data"
    folder.mkdir()
    identities = {"service-scheduler": author.scheduler.identity, "server-owner": author.server_owner.identity}
    for cluster, code in ((CLUSTER, ExitCode.OK), ("other", ExitCode.USAGE)):
        state = StackState(1, 1, "ready", "127.0.0.1:1", cluster, str(folder), 0.0, identities)
        state.save(folder / "state.json")
        result = offline("audit", "verify", _written(offline.folder, author.file()), "--strict", "--data-dir", str(folder))
        assert result.exit_code == code, result.output
    told = json.loads(offline("status", "--json", "--data-dir", str(folder)).stdout)
    assert told["local"]["identities"] == identities


def test_show_tells_who_asked_for_what(offline: Shell, author: Author) -> None:
    path = _written(offline.folder, author.file())
    wanted = author.processes[3]
    result = offline("audit", "show", path, "--process", wanted.id)
    assert result.exit_code == 0, result.output
    assert "SUBMITTED: NONE -> WAITING, by user ann" in result.stdout
    assert "asked for by CloseProcesses, signed with the key of executor exec-1" in result.stdout
    assert "error: no such file: grüße" in result.stdout
    assert author.processes[0].id not in result.stdout
    documents = offline.json("audit", "show", path)
    assert [document["id"] for document in documents] == [process.id for process in author.processes]
    assert [event["reason"] for event in documents[0]["events"]] == ["SUBMITTED", "ASSIGNED", "CLOSED"]
    assert documents[0]["call"]["method"] == "SubmitWorkflow"


def test_a_body_that_is_no_base64_is_told_all_the_same(offline: Shell, author: Author) -> None:
    records = author.records()
    call = next(record for record in records if record.get("method", "").removesuffix("+json").endswith("SubmitWorkflow"))
    call["body"] = "abc"
    path = _written(offline.folder, author.file(records))
    assert offline("audit", "show", path).exit_code == 0
    result = offline("audit", "verify", path, *_trust(author))
    assert (result.exit_code, "no base64" in result.stdout) == (ExitCode.FAILED, True)


@pytest.mark.parametrize("words", [("verify",), ("show",)])
def test_any_file_ends_in_one_line(offline: Shell, author: Author, words: Sequence[str]) -> None:
    for data in (b"", b"\n", b"\x00" * 200, b"{}\n", author.file()[:-1], author.file() + b"x"):
        path = _written(offline.folder, data)
        result = offline("audit", *words, path, *(_trust(author) if words == ("verify",) else ()))
        assert result.exit_code == ExitCode.FAILED, (data[:20], result.output)
        assert "Traceback" not in result.output
    assert offline("audit", *words, str(offline.folder / "none")).exit_code == ExitCode.USAGE
