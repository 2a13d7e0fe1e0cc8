"""`colonies sign`: what it prints is a call that a service takes."""

import json
import re
import shutil
import subprocess
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest

from colonies.cli.failure import ExitCode
from colonies.keys import PrivateKey
from colonies.signing import call_digest, call_text
from servicekit.signature import check_call
from tests.rpc.methods import all_methods

from .conftest import Shell

SUBMIT = "colonies.scheduler.v1.SchedulerService/SubmitProcesses"
BODY = b' {"colonyName": "dev",\r\n "requestId":"1"}\n\n'
TIME_MS = 1_700_000_000_000


@pytest.fixture
def signing(offline: Shell) -> Shell:
    """A shell that knows a server, which is not there."""
    key_file = offline.folder / "user.key"
    offline.key.save(key_file)
    (offline.folder / "body.json").write_bytes(BODY)
    offline.env |= {
        "COLONIES_HOST": "127.0.0.1",
        "COLONIES_PORT": "50080",
        "COLONIES_CLUSTER": "test",
        "COLONIES_KEY_FILE": str(key_file),
    }
    return offline


def checked(shell: Shell, document: Any, body: bytes, path: str = f"/{SUBMIT}+json", *, key: PrivateKey | None = None) -> None:
    """That a service in this cluster takes the call."""
    headers = document["headers"]
    signed = check_call(headers, method=path, audience="test", body=body, now_ms=int(headers["colonies-time"]))
    assert signed.key == (key or shell.key).identity
    assert document["method"] == path
    text = call_text(
        method=path, audience="test", time_ms=int(headers["colonies-time"]), nonce=headers["colonies-nonce"], body=body
    )
    signature = bytes.fromhex(headers["colonies-signature"])
    assert document["digest"] == call_digest(text, bytes.fromhex(headers["colonies-public-key"]), signature)


def test_the_bytes_of_the_file_are_signed_as_they_are(signing: Shell) -> None:
    document = signing.json("sign", "scheduler.SubmitProcesses", str(signing.folder / "body.json"))
    assert document["url"] == f"http://127.0.0.1:50080/api/{SUBMIT}"
    checked(signing, document, BODY)
    other = signing.json("sign", "scheduler.SubmitProcesses", str(signing.folder / "body.json"))
    assert other["headers"]["colonies-nonce"] != document["headers"]["colonies-nonce"]


def test_the_standard_input_and_no_body(signing: Shell) -> None:
    result = signing("--json", "sign", "scheduler.SubmitProcesses", "-", stdin=BODY.decode())
    checked(signing, json.loads(result.stdout), BODY)
    document = signing.json("sign", "auth.GetServerInfo")
    checked(signing, document, b"{}", "/colonies.auth.v1.AuthService/GetServerInfo+json")


def test_the_time_and_how_the_nonce_begins(signing: Shell) -> None:
    document = signing.json("sign", "scheduler.SubmitProcesses", "--time", str(TIME_MS), "--nonce-prefix", "0123456789abcdef")
    assert document["headers"]["colonies-time"] == str(TIME_MS)
    assert re.fullmatch("0123456789abcdef[0-9a-f]{16}", document["headers"]["colonies-nonce"])
    checked(signing, document, b"{}")


def test_the_owners_keys(signing: Shell) -> None:
    key = PrivateKey.generate()
    key.save(signing.folder / "owner.key")
    (signing.folder / "profiles.toml").write_text(
        f'default = "p"\n[profiles.p]\nowner_key_file = "{signing.folder}/owner.key"\n'
        f'server_owner_key_file = "{signing.folder}/owner.key"\n'
    )
    for option in ("--owner", "--server-owner"):
        document = signing.json("sign", "auth.ListColonies", option)
        checked(signing, document, b"{}", "/colonies.auth.v1.AuthService/ListColonies+json", key=key)
    result = signing("sign", "auth.ListColonies", "--owner", "--server-owner")
    assert (result.exit_code, "exclude each other" in result.output) == (ExitCode.USAGE, True)


def test_every_method_has_its_names(signing: Shell) -> None:
    for method in all_methods():
        path = method.path + "+json"
        service = method.descriptor.containing_service.name.removesuffix("Service").lower()
        for name in (method.path, method.path[1:], path[1:], f"{method.service}.{method.descriptor.name}"):
            assert signing.json("sign", name)["method"] == path, name
        assert signing.json("sign", f"{service}.{method.descriptor.name}")["method"] == path


@pytest.mark.parametrize(
    ("given", "near"),
    [
        ("scheduler.SubmitProcess", "scheduler.SubmitProcesses"),
        ("scheduler.submitprocesses", "scheduler.SubmitProcesses"),
        ("SubmitProcesses", "scheduler.SubmitProcesses"),
        ("registry.SubmitProcesses", "scheduler.SubmitProcesses"),
        ("colonies.scheduler.v1.Scheduler/AddCron", "cron.AddCron"),
        ("xyz", "it is SERVICE.METHOD"),
        ("", "it is SERVICE.METHOD"),
    ],
)
def test_a_method_that_there_is_not(signing: Shell, given: str, near: str) -> None:
    result = signing("sign", given)
    assert (result.exit_code, result.stdout) == (ExitCode.USAGE, "")
    assert near in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "error"),
    [
        (["/no/such/file"], "/no/such/file: No such file"),
        (["/"], "/: Is a directory"),
        (["--nonce-prefix", "0123"], "--nonce-prefix: '0123' is not 16 lower-case hex digits"),
        (["--nonce-prefix", "0123456789ABCDEF"], "is not 16 lower-case hex digits"),
        (["--time", "-1"], "greater than or equal to 0"),
        (["--time", str(10**15)], "999999999999999"),
    ],
)
def test_what_cannot_be_signed(signing: Shell, args: list[str], error: str) -> None:
    result = signing("sign", "scheduler.SubmitProcesses", *args)
    assert (result.exit_code, error in result.stderr) == (ExitCode.USAGE, True), result.stderr


class Echo(BaseHTTPRequestHandler):
    """Answers with what came."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        document = {"path": self.path, "headers": dict(self.headers), "body": body.hex()}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(document).encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("with_body", [True, False], ids=["body", "no_body"])
def test_curl_makes_the_call_that_was_signed(signing: Shell, with_body: bool) -> None:
    with HTTPServer(("127.0.0.1", 0), Echo) as server:
        thread = Thread(target=server.handle_request)
        thread.start()
        port = server.server_address[1]
        file = str(signing.folder / "body.json")
        printed = signing("sign", "scheduler.SubmitProcesses", *([file] if with_body else []), COLONIES_PORT=str(port))
        assert printed.exit_code == 0, printed.output
        command = ["curl", "-sS", "-K", "-", *(["--data-binary", f"@{file}"] if with_body else [])]
        run = subprocess.run(command, input=printed.stdout, capture_output=True, text=True, timeout=60, check=True)
        thread.join()
    came = json.loads(run.stdout)
    headers = {name.lower(): value for name, value in came["headers"].items()}
    assert (came["path"], headers["content-type"]) == (f"/api/{SUBMIT}", "application/json")
    body = BODY if with_body else b"{}"
    assert bytes.fromhex(came["body"]) == body
    signed = check_call(headers, method=f"/{SUBMIT}+json", audience="test", body=body, now_ms=int(headers["colonies-time"]))
    assert signed.key == signing.key.identity


def test_what_curl_is_told_of_certificates(signing: Shell) -> None:
    files = [signing.folder / name for name in ('ca "x".pem', "cert.pem", "back\\slash.pem")]
    options = [
        word
        for option, file in zip(("--ca-file", "--cert-file", "--cert-key-file"), files, strict=True)
        for word in (option, str(file))
    ]
    result = signing("sign", "auth.GetServerInfo", "--host", "::1", "--cluster", "test", *options)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == 'url = "https://[::1]:50080/api/colonies.auth.v1.AuthService/GetServerInfo"'
    assert f'cacert = "{signing.folder}/ca \\"x\\".pem"' in lines
    assert f'cert = "{signing.folder}/cert.pem"' in lines
    assert f'key = "{signing.folder}/back\\\\slash.pem"' in lines
