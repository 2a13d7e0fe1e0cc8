"""The chaos test many times over: `python -m tests.fault.repeat TIMES [FIRST_SEED]`.

Each run has a seed of its own, FIRST_SEED and those that follow it, or random ones. Prints a line for each run, and the seeds of
those that failed, with the logs of each; ends with 1 if there was one.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

TEST = "tests/fault/test_chaos.py"
SUMMARY = "chaos seed "


def main(times: int, first_seed: int | None) -> int:
    """How it ends: 0 if every run was accounted for."""
    logs = Path(tempfile.mkdtemp(prefix="colonies-chaos-"))
    failed = []
    for run in range(times):
        seed = first_seed + run if first_seed is not None else int.from_bytes(os.urandom(4), "big")
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", TEST],
            env={**os.environ, "FAULT_SEED": str(seed)},
            capture_output=True,
            text=True,
            check=False,
        )
        log = logs / f"{seed}.log"
        log.write_text(done.stdout + done.stderr)
        lines = [line for line in done.stdout.splitlines() if line.startswith(f"{SUMMARY}{seed}:")]
        print(f"{run + 1}/{times} {'ok    ' if done.returncode == 0 else 'FAILED'} {''.join(lines[:1]) or log}", flush=True)
        if done.returncode != 0:
            failed.append(seed)
    if failed:
        print(f"{len(failed)} of {times} failed: seeds {', '.join(map(str, failed))}; logs in {logs}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None))
