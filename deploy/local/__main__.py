"""The supervisor process: reads settings from its standard input, and runs until SIGTERM.

Its lock came with it, as an open file whose number is its one argument.
"""

import os
import signal
import sys
import threading

from deploy.local.errors import StackError
from deploy.local.settings import StackSettings
from deploy.local.stack import Stack


def main(arguments: list[str]) -> int:
    """Runs the stack that standard input describes."""
    # Children must not hold the lock, or it would outlive its owner.
    os.set_inheritable(int(arguments[0]), False)
    settings = StackSettings.from_json(sys.stdin.read())
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        Stack(settings).run(stopping)
    except StackError as error:
        print(error.message, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
