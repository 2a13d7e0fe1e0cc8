"""One of the demo's executors: `python -m colonies.cli.demo.executor E1 --types edge,cloud ...`.

By itself it works until Ctrl-C, as every executor. With --held it is a child of the demo: it registers, says so, pulls nothing
before it reads the word to begin, and ends when its standard input does.
"""

import argparse
import asyncio
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from colonies.cli.demo import functions
from colonies.client import AsyncClient
from colonies.errors import ColoniesError
from colonies.executor import Executor
from colonies.keys import PrivateKey
from colonies.tls import Tls

BEGIN = "begin"
REGISTERED = "registered"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs an executor; gives the exit code."""
    options = _options(arguments)
    key = PrivateKey.load_or_create(options.key_file)
    types = options.types.split(",")
    executor = Executor(
        options.name,
        executor_types=types,
        host=options.host,
        port=options.port,
        cluster=options.cluster,
        colony=options.colony,
        key=key,
        tls=_tls(options),
    )
    executor.function(functions.gen_nums)
    executor.function(functions.square)
    executor.function(name="sum")(functions.add)
    if options.held:
        asyncio.run(_register(options, key, types))
        print(REGISTERED, key.identity, flush=True)
        if sys.stdin.readline().strip() != BEGIN:
            return 0
        threading.Thread(target=_stop_at_end_of_input, args=(executor,), daemon=True).start()
    executor.run()
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="An executor of the Colonies demo: gen_nums, square and sum.")
    parser.add_argument("name")
    parser.add_argument("--types", required=True, help="executor types, comma-separated")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", required=True, type=int)
    parser.add_argument("--cluster", required=True)
    parser.add_argument("--ca-file", default="", help="certificates to trust; none: plaintext")
    parser.add_argument("--colony", required=True)
    parser.add_argument("--key-file", required=True, type=Path)
    parser.add_argument("--held", action="store_true", help="wait for the word to begin; end with the standard input")
    return parser.parse_args(arguments)


def _tls(options: argparse.Namespace) -> Tls | bool:
    return Tls(options.ca_file) if options.ca_file else False


async def _register(options: argparse.Namespace, key: PrivateKey, types: Sequence[str]) -> None:
    tls = _tls(options)
    async with AsyncClient(options.host, options.port, options.colony, key, options.cluster, tls=tls) as client:
        await client.register_executor(options.name, types)


def _stop_at_end_of_input(executor: Executor) -> None:
    sys.stdin.read()
    executor.stop()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ColoniesError as error:
        sys.exit(f"error: {error}")
