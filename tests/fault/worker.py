"""An executor process: worker.py NAME TYPES KEY_FILE CONCURRENCY EFFECTS PORT CLUSTER. Each run adds a line to EFFECTS."""

import asyncio
import logging
import os
import sys
import time
from pathlib import Path

from colonies import Context, Executor

COLONY = "dev"


def main() -> None:
    name, types, key_file, concurrency, effects, port, cluster = sys.argv[1:]
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    executor = Executor(
        name,
        executor_types=types.split(","),
        host="127.0.0.1",
        port=int(port),
        colony=COLONY,
        cluster=cluster,
        key_file=key_file,
        concurrency=int(concurrency),
    )
    log = os.open(Path(effects), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def note(ctx: Context) -> None:
        # One write of one line with O_APPEND: lines of several processes do not mix.
        os.write(log, f"{ctx.process_id} {ctx.attempt} {name} {time.time():.6f}\n".encode())

    @executor.function
    async def twice(ctx: Context, x: int, *, pause_ms: int = 0) -> int:
        "Twice x, after a pause."
        note(ctx)
        if pause_ms:
            await asyncio.sleep(pause_ms / 1000)
        return 2 * x

    @executor.function
    async def add(ctx: Context, *numbers: int) -> int:
        "The sum."
        note(ctx)
        return sum(numbers)

    executor.run()


if __name__ == "__main__":
    main()
