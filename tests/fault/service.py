"""A service that reaches Postgres and valkey by ways of its own: `service.py NAME`, with the ways in FAULT_WAYS.

FAULT_WAYS is JSON: for the name of a replica (its working directory's), what to set in its environment.
"""

import json
import os
import runpy
import sys
from pathlib import Path

WAYS = "FAULT_WAYS"


def main() -> None:
    os.environ.update(json.loads(os.environ[WAYS]).get(Path.cwd().name, {}))
    runpy.run_module(f"services.{sys.argv[1]}", run_name="__main__")


if __name__ == "__main__":
    main()
