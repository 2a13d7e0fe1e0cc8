"""What the command line signs and curl sends: a process is submitted and read with nothing else."""

import asyncio
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.harness.cluster import CLUSTER, COLONY

from .stage import Stage

pytestmark = [pytest.mark.asyncio, pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")]

COLONIES = (sys.executable, "-c", "from colonies.cli import main; main()")


class Terminal:
    """Alice's, with a key file and a folder."""

    def __init__(self, stage: Stage, folder: Path) -> None:
        self._folder = folder
        key_file = folder / "alice.key"
        stage.cluster.keys.user.save(key_file)
        plain = {name: value for name, value in os.environ.items() if not name.startswith("COLONIES_")}
        self._environment = {
            **plain,
            "COLONIES_CONFIG": str(folder / "profiles.toml"),
            "COLONIES_HOST": "127.0.0.1",
            "COLONIES_PORT": str(stage.port),
            "COLONIES_CLUSTER": CLUSTER,
            "COLONIES_KEY_FILE": str(key_file),
        }

    async def call(self, method: str, document: Any) -> tuple[int, Any]:
        """Signs and sends a request; the status, and the document that came. Anew with its prefix, if the nonce must have one."""
        file = self._folder / "body.json"
        file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        status, answer = await self._once(method, file)
        if status != 200 and answer["reason"] == "NONCE_PREFIX_REQUIRED":
            return await self._once(method, file, "--nonce-prefix", answer["metadata"]["nonce_prefix"])
        return status, answer

    async def _once(self, method: str, file: Path, *options: str) -> tuple[int, Any]:
        signed = await self._run(*COLONIES, "sign", method, str(file), *options)
        curl = ("curl", "-sS", "-K", "-", "--data-binary", f"@{file}", "-w", "\n%{http_code}")
        body, _, status = (await self._run(*curl, given=signed)).rpartition(b"\n")
        return int(status), json.loads(body)

    async def _run(self, *command: str, given: bytes = b"") -> bytes:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*command, env=self._environment, stdin=pipe, stdout=pipe, stderr=pipe)
        output, errors = await asyncio.wait_for(process.communicate(given), 60)
        assert process.returncode == 0, errors
        return output


async def test_a_process_is_submitted_and_read_with_curl_alone(here: Stage, tmp_path: Path) -> None:
    terminal = Terminal(here, tmp_path)
    spec = {"funcName": "square", "args": [{"data": "MTI="}], "conditions": {"executorType": "cli"}}
    submit = {"colonyName": COLONY, "requestId": "by-hand", "specs": [spec]}
    status, answer = await terminal.call("scheduler.SubmitProcesses", submit)
    assert (status, len(answer["processIds"])) == (200, 1)
    (process_id,) = answer["processIds"]
    assert (await here.acme.get(process_id)).spec.args[0].data == b"12"
    # The same request id: the same process.
    assert await terminal.call("scheduler.SubmitProcesses", submit) == (200, {"processIds": [process_id]})
    await here.acme.close(await here.acme.one(), "144")
    status, answer = await terminal.call("scheduler.GetProcess", {"colonyName": COLONY, "processId": process_id})
    assert (status, answer["process"]["state"]) == (200, "PROCESS_STATE_SUCCESSFUL")
    assert answer["process"]["outputs"][0]["data"] == "MTQ0"


async def test_what_curl_sends_in_another_way_than_it_was_signed_is_refused(here: Stage, tmp_path: Path) -> None:
    terminal = Terminal(here, tmp_path)
    # Learns the prefix, if nonces need one.
    assert (await terminal.call("auth.GetServerInfo", {}))[0] == 200
    file = tmp_path / "body.json"
    file.write_text('{"colonyName":\n"acme"}\n', encoding="utf-8")
    signed = await terminal._run(*COLONIES, "sign", "auth.GetColony", str(file))
    # --data takes the line feeds out.
    answer = json.loads(await terminal._run("curl", "-sS", "-K", "-", "--data", f"@{file}", given=signed))
    assert (answer["code"], answer["reason"]) == ("UNAUTHENTICATED", "SIGNATURE_INVALID")
