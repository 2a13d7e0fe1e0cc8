"""The functions of the paper's example. They run in the executors, not in the demo."""

from colonies.cli.demo import gate
from colonies.executor import Context


def gen_nums(ctx: Context) -> tuple[int, int]:
    """Generates two numbers: two outputs, of which each child gets one."""
    ctx.log("generating 2 and 3")
    return 2, 3


def square(ctx: Context, number: int) -> int:
    """Squares a number. Waits at the demo's gate first, if the process has one in its environment."""
    if address := ctx.env.get(gate.VARIABLE):
        ctx.log("waiting at the gate")
        gate.pass_through(address)
    ctx.log(f"squaring {number}")
    return number * number


def add(ctx: Context, first: int, second: int) -> int:
    """Adds two numbers; announced as `sum`."""
    ctx.log(f"adding {first} and {second}")
    return first + second
