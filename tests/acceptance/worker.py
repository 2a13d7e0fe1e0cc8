"""An executor process: worker.py NAME TYPES KEY_FILE CONCURRENCY EFFECTS. Each run of a function adds a line to EFFECTS."""

import os
import sys
import time
from pathlib import Path

from colonies import Context, Executor


def main() -> None:
    name, types, key_file, concurrency, effects = sys.argv[1:]
    executor = Executor(name, executor_types=types.split(","), key_file=key_file, concurrency=int(concurrency))

    def note(ctx: Context, function: str) -> None:
        # One write of one line with O_APPEND: lines of several processes do not mix.
        line = f"{ctx.process_id} {ctx.attempt} {function} {name}\n".encode()
        descriptor = os.open(Path(effects), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)

    @executor.function
    def gen_nums(ctx: Context) -> tuple[int, int]:
        "Two numbers."
        note(ctx, "gen_nums")
        return 2, 3

    @executor.function
    def gen_data(ctx: Context) -> tuple[int, int]:
        "Two numbers."
        return gen_nums(ctx)

    @executor.function
    def square(ctx: Context, x: int) -> int:
        "x times x."
        note(ctx, "square")
        return x * x

    @executor.function(name="sum")
    def add(ctx: Context, *numbers: int) -> int:
        "The sum."
        note(ctx, "sum")
        return sum(numbers)

    @executor.function
    def fail(ctx: Context, message: str) -> None:
        "Raises."
        note(ctx, "fail")
        raise ValueError(message)

    @executor.function
    def busy(ctx: Context, seconds: float) -> str:
        "Works for so long, or until cancelled."
        note(ctx, "busy")
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not ctx.cancelled.is_set():
            ctx.cancelled.wait(0.05)
        return "cancelled" if ctx.cancelled.is_set() else "done"

    @executor.function
    def squares(ctx: Context) -> int:
        "Answers each number on its channel with its square, until there are no more."
        note(ctx, "squares")
        channel, count = ctx.channel("numbers"), 0
        for number in channel:
            channel.send(number * number)
            count += 1
        channel.end()
        return count

    executor.run()


if __name__ == "__main__":
    main()
