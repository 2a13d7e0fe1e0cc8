"""Executors: programs that pull work and run it.

    from colonies import Executor

    executor = Executor("e1", executor_types=["edge", "cloud"])

    @executor.function
    def square(x: int) -> int:
        "Squares a number."
        return x * x

    executor.run()

The server is found through the active profile, or through arguments.
"""

from colonies.executor.context import Context
from colonies.executor.executor import Executor

__all__ = ["Context", "Executor"]
