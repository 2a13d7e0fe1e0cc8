"""Ports are given out once, by all the processes of a machine together."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.local import ports
from deploy.local.errors import StackError

# Takes the one port there is, says so, and lives until its input ends.
TAKER = """
import sys
from deploy.local import ports
ports._FIRST = ports._LAST = int(sys.argv[1])
print(ports.free_port(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    """A free port, and the only one that is ever chosen here."""
    with socket.socket() as probe:
        probe.bind((ports.LOOPBACK, 0))
        chosen: int = probe.getsockname()[1]
    monkeypatch.setattr(ports, "_FIRST", chosen)
    monkeypatch.setattr(ports, "_LAST", chosen)
    return chosen


def test_two_processes_are_never_given_one_port_though_nobody_listens_there_yet(port: int, tmp_path: Path) -> None:
    kept = tmp_path / "port"
    kept.write_text(f"{port}\n")
    command = [sys.executable, "-c", TAKER, str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as taker:
        assert taker.stdout is not None
        assert taker.stdout.readline() == f"{port}\n"
        assert ports.is_free(port)
        with pytest.raises(StackError, match="no free port"):
            ports.free_port()
        with pytest.raises(StackError, match="no free port"):
            ports.kept_port(kept)
        taker.kill()
    # The end of a process, of whatever kind, gives its ports back.
    assert ports.kept_port(kept) == port


def test_one_process_is_given_a_port_once_and_keeps_it_over_restarts(port: int, tmp_path: Path) -> None:
    kept = tmp_path / "port"
    assert ports.kept_port(kept) == port
    assert kept.read_text() == f"{port}\n"
    assert ports.kept_port(kept) == port
    with pytest.raises(StackError, match="no free port"):
        ports.free_port()
