"""Parsing, exit codes and error lines: what needs no server."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from colonies import __version__
from colonies.cli.app import Root, app
from colonies.cli.lazy import hoisted
from colonies.keys import PrivateKey

from .conftest import Shell


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["process", "list", "--json"], ["--json", "process", "list"]),
        (["process", "list", "--colony", "c"], ["--colony", "c", "process", "list"]),
        (["process", "list", "--colony=c", "--debug"], ["--colony=c", "--debug", "process", "list"]),
        (["submit", "f", "--", "--json"], ["submit", "f", "--", "--json"]),
        (["up", "--port", "1", "--json"], ["--json", "up", "--port", "1"]),
        (["--port", "1", "up"], ["--port", "1", "up"]),
        (["process", "list", "--host"], ["--host", "process", "list"]),
    ],
)
def test_global_options_stand_anywhere(args: list[str], expected: list[str]) -> None:
    assert hoisted(args) == expected


def test_every_command_of_the_table_loads_and_has_help(offline: Shell) -> None:
    for name in Root.entries:
        result = offline(name, "--help")
        assert result.exit_code == 0, (name, result.output)
        assert f"colonies {name}" in result.stdout
        assert "Exit codes" in result.stdout


def test_no_command_shows_the_overview(offline: Shell) -> None:
    result = offline()
    assert result.exit_code == 0
    assert "workflow" in result.stdout
    assert "Exit codes: 0 done" in result.stdout


def test_version(offline: Shell) -> None:
    assert offline("version").stdout == f"colonies {__version__}\n"
    assert offline.json("version")["version"] == __version__


@pytest.mark.parametrize(
    ("args", "error"),
    [
        (["nope"], "No such command 'nope'"),
        (["process", "lst"], "Did you mean 'list'?"),
        (["process", "get"], "Missing argument 'PROCESS'"),
        (["process"], "Missing command"),
        (["process", "list", "--state", "odd"], "--state: 'odd' is none of waiting, running"),
        (["submit", "f", "--priority", "50001"], "less than or equal to 50000"),
        (["submit", "f", "--max-exec-time", "soon"], "--max-exec-time: 'soon' is not a duration"),
        (["submit", "f", "--kwarg", "x"], "--kwarg: 'x' is not of the form KEY=VALUE"),
        (["submit", "f", "--env", "a=1", "--env", "a=2"], "--env: 'a' is given twice"),
        (["submit", "f", "--require", "=x"], "--require: '=x' is not of the form KEY or KEY=VALUE"),
        (["submit", "f", "--require", "a=x", "--require", "a"], "says something else of a key than before"),
        (["submit", "f", "--backoff", "soon"], "--backoff: 'soon' is not a duration"),
        (["submit", "f", "--backoff", "1s,factor=x"], "--backoff: factor is 'x', which is no number"),
        (["submit", "f", "--backoff", "1s,speed=2"], "it takes first, factor, longest and jitter"),
        (["submit", "f", "--gpu", "a100"], "--gpu: 'a100' is not of the form COUNT or NAME:COUNT"),
        (["explain", "p", "--type", "cloud"], "need --spec"),
        (["watch", "p", "--state", "failed"], "leave out the id"),
        (["watch", "--state", "odd"], "--state: 'odd' is none of waiting, running"),
        (["cron", "add", "c", "f.json"], "give one of --expression, --every and --random-every"),
        (["key", "identity", "/no/such/file"], "/no/such/file"),
        (["process", "list"], "no profile to reach a server with"),
        (["process", "list", "--profile", "other"], "there is no profile 'other'"),
    ],
)
def test_usage_errors_are_one_line_and_exit_with_2(offline: Shell, args: list[str], error: str) -> None:
    result = offline(*args)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert error in result.stderr
    assert result.stderr.count("\n") == 1


def test_debug_shows_where(offline: Shell) -> None:
    assert "Traceback" in offline("process", "list", "--debug").stderr
    assert "Traceback" not in offline("process", "list").stderr


def test_keygen_writes_a_private_file_once(offline: Shell, tmp_path: Path) -> None:
    path = tmp_path / "new.key"
    made = offline("keygen", str(path), "--show-identity")
    assert made.exit_code == 0
    assert made.stdout.strip() == PrivateKey.load(path).identity
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = offline("keygen", str(path))
    assert again.exit_code == 6
    assert "never overwritten" in again.stderr
    assert offline("key", "identity", str(path)).stdout == made.stdout
    assert offline.json("key", "identity", str(path))["identity"] == made.stdout.strip()


def test_profiles_say_how_to_connect(offline: Shell, tmp_path: Path) -> None:
    files = {name: str(tmp_path / name) for name in ("ca", "cert", "key")}
    given = ("--ca-file", files["ca"], "--cert-file", files["cert"], "--cert-key-file", files["key"])
    assert offline("profile", "add", "one", "--host", "h", *given).exit_code == 0
    shown = offline.json("profile", "show", "one")
    assert (shown["tls"], shown["ca_file"], shown["cert_file"], shown["cert_key_file"]) == (True, *files.values())
    assert offline.json("--no-tls", "profile", "show", "one")["tls"] is False
    assert offline("profile", "add", "two", "--host", "h", "--port", "7", "--no-tls").exit_code == 0
    assert offline.json("profile", "show", "two")["tls"] is False
    assert offline("profile", "add", "three", "--host", "g").exit_code == 0
    assert "could be read on the way" in offline("profile", "show", "three").stdout.replace("\n", " ")
    # To another server the profile's trust does not go along; what is known of that one counts.
    assert offline.json("profile", "show", "one", "--port", "7")["tls"] is False
    assert offline.json("profile", "show", "one", "--port", "8")["ca_file"] == ""
    refused = offline("process", "list", "--profile", "three", "--cluster", "x", "--key-file", str(tmp_path / "none"))
    assert refused.exit_code == 2


def test_plaintext_to_another_machine_is_refused_as_a_usage_error(offline: Shell, tmp_path: Path) -> None:
    key = tmp_path / "k.key"
    offline("keygen", str(key))
    refused = offline("colony", "list", "--host", "h.example", "--cluster", "c", "--key-file", str(key))
    assert refused.exit_code == 2
    assert "plaintext to h.example could be read on the way: give --ca-file" in refused.stderr


def test_profiles(offline: Shell, tmp_path: Path) -> None:
    key = tmp_path / "k.key"
    identity = offline.json("keygen", str(key))["identity"]
    added = offline(
        "profile", "add", "one", "--host", "h", "--port", "7", "--colony", "c", "--cluster", "x", "--key-file", str(key)
    )
    assert added.exit_code == 0, added.output
    assert offline("profile", "add", "two", "--no-default", "--host", "g").exit_code == 0
    listed = {each["name"]: each for each in offline.json("profile", "list")}
    assert listed["one"]["default"] is True
    assert listed["two"]["default"] is False
    assert listed["one"] | {"default": 0} == {
        "name": "one",
        "host": "h",
        "port": 7,
        "cluster": "x",
        "colony": "c",
        "key_file": str(key),
        "owner_key_file": "",
        "server_owner_key_file": "",
        "default": 0,
        "tls": None,
        "ca_file": "",
        "cert_file": "",
        "cert_key_file": "",
    }
    assert offline("profile", "use", "two").exit_code == 0
    assert offline.json("profile", "show")["name"] == "two"
    assert identity in offline("profile", "show", "one").stdout
    missing = offline("profile", "use", "three")
    assert missing.exit_code == 3
    assert "'three'" in missing.stderr
    # A changed profile keeps what is not mentioned.
    assert offline("profile", "add", "one", "--port", "8").exit_code == 0
    assert offline.json("profile", "show", "one")["host"] == "h"


def test_a_profile_as_lines_for_a_shell(offline: Shell, tmp_path: Path) -> None:
    key = tmp_path / "my key"
    given = ("--host", "far.example", "--port", "7", "--cluster", "x", "--colony", "it's", "--no-tls", "--key-file", str(key))
    assert offline("profile", "add", "one", *given).exit_code == 0
    wanted = {
        "COLONIES_HOST": "far.example",
        "COLONIES_PORT": "7",
        "COLONIES_CLUSTER": "x",
        "COLONIES_COLONY": "it's",
        "COLONIES_KEY_FILE": str(key),
        "COLONIES_TLS": "off",
    }
    assert offline.json("profile", "env") == wanted
    script = offline("profile", "env").stdout + "\nenv -0"
    shell = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True, env={})
    seen = dict(line.split("=", 1) for line in shell.stdout.split("\0") if line.startswith("COLONIES_"))
    assert seen == wanted
    # Plaintext to this machine needs no permission, and gives none.
    assert offline("profile", "add", "two", "--host", "127.0.0.1", "--no-tls").exit_code == 0
    assert "COLONIES_TLS" not in offline.json("profile", "env", "two")


def test_another_address_does_not_take_the_cluster_of_the_profile_along(offline: Shell, tmp_path: Path) -> None:
    key = tmp_path / "k.key"
    offline("keygen", str(key))
    offline("profile", "add", "one", "--port", "7", "--cluster", "x", "--colony", "c", "--key-file", str(key))
    result = offline("process", "list", "--port", "8")
    assert result.exit_code == 2
    assert "cluster id" in result.stderr


def _fresh(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, check=False, timeout=60)


def test_help_and_completion_do_not_load_grpc() -> None:
    program = (
        "import sys; from typer.main import get_command; from colonies.cli.app import app\n"
        "for args in (['--help'], ['version'], []):\n"
        "    try: get_command(app).main(args=args)\n"
        "    except SystemExit: pass\n"
        "sys.exit('grpc' in sys.modules)"
    )
    done = _fresh("-c", program)
    assert done.returncode == 0, done.stdout + done.stderr


def test_shell_completion_completes_commands_and_subcommands() -> None:
    def completions(words: str, number: int) -> str:
        env = {**os.environ, "_COLONIES_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(number)}
        done = subprocess.run(
            [sys.executable, "-c", "from colonies.cli import main; import sys; sys.argv=['colonies']; main()"],
            capture_output=True,
            text=True,
            check=False,
            env=env,
            timeout=60,
        )
        return done.stdout

    assert set(completions("colonies wo", 1).split()) == {"workflow"}
    assert {"submit", "list", "graph"} <= set(completions("colonies workflow ", 2).split())
    assert {"add", "update", "fires", "next", "preview"} <= set(completions("colonies cron ", 2).split())
    assert {"pack", "bins", "batches", "flush", "drop"} <= set(completions("colonies generator ", 2).split())


def test_a_reader_that_went_away_is_no_error() -> None:
    program = "from colonies.cli import main; import sys; sys.argv=['colonies', 'version']; main()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        stderr = process.stderr.read()
    assert process.returncode == 141
    assert stderr == ""


def test_an_unforeseen_error_is_one_line(offline: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        msg = "line one\nline two"
        raise ZeroDivisionError(msg)

    monkeypatch.setattr(Root, "resolve_command", broken)
    result = offline("process", "list")
    assert result.exit_code == 1
    assert result.stderr == ("error: unexpected ZeroDivisionError: line one line two (run again with --debug to see where)\n")


def test_interruption_exits_with_130(offline: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Root, "resolve_command", interrupted)
    before = signal.getsignal(signal.SIGINT)
    try:
        assert offline("process", "list").exit_code == 130
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_root_is_a_group() -> None:
    assert isinstance(get_command(app), Root)
