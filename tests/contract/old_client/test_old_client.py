"""A client of the first release runs the paper's example against today's services."""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc_tools
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from colonies.scheduler.v1 import scheduler_service_pb2 as today
from tests.harness.cluster import CLUSTER, Cluster

HERE = Path(__file__).parent
IMAGE = HERE / "first_release.binpb"
SECONDS = 120


async def output_of(*command: str, given: bytes = b"", **environment: str) -> bytes:
    """What a program prints; it must end well."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("COLONIES_", "PYTHON"))}
    program = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**kept, **environment},
    )
    async with asyncio.timeout(SECONDS):
        out, errors = await program.communicate(given)
    assert program.returncode == 0, errors.decode()
    return out


async def stubs_of_the_first_release(folder: Path) -> None:
    """Generates them from the image, as a package of their own."""
    files = [file.name for file in FileDescriptorSet.FromString(IMAGE.read_bytes()).file if file.name.startswith("colonies/")]
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    options = (f"--descriptor_set_in={IMAGE}", f"-I{well_known}", f"--python_out={folder}", f"--grpc_python_out={folder}")
    await output_of(sys.executable, "-m", "grpc_tools.protoc", *options, *files)
    # An ordinary package comes before that of today's SDK; one without this file would not.
    (folder / "colonies" / "__init__.py").touch()


@pytest.mark.asyncio
async def test_a_client_of_the_first_release_runs_the_papers_example(
    new_cluster: Callable[..., Awaitable[Cluster]], tmp_path: Path
) -> None:
    cluster = await new_cluster(populate=False)
    await stubs_of_the_first_release(tmp_path)
    settings: dict[str, Any] = {name: running[0].address for name, running in cluster.replicas.items()}
    settings |= {"cluster": CLUSTER, "server_owner": cluster.keys.server_owner.hex}
    told = await output_of(
        sys.executable, str(HERE / "client.py"), given=json.dumps(settings).encode(), PYTHONPATH=str(tmp_path)
    )
    answer = json.loads(told)
    # That it is as old as it says.
    assert Path(answer["stubs"]).parent == tmp_path
    (service,) = today.DESCRIPTOR.services_by_name.values()
    assert {"SubmitWorkflow", "AssignProcesses"} <= set(answer["methods"])
    assert not {"WatchAssignments", "RotateKey"} & set(answer["methods"])
    assert "WatchAssignments" in service.methods_by_name
    found = answer["found"]
    assert {name: (one["input"], one["output"]) for name, one in found.items()} == {
        "task1": ([], [2, 3]),
        "task2": ([2], [4]),
        "task3": ([3], [9]),
        "task4": ([4, 9], [13]),
    }
    steps = [f"PROCESS_STATE_{state}" for state in ("WAITING", "RUNNING", "SUCCESSFUL")]
    assert {name: (one["state"], one["steps"]) for name, one in found.items()} == dict.fromkeys(
        found, ("PROCESS_STATE_SUCCESSFUL", steps)
    )
