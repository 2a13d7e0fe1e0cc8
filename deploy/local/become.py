"""Becomes another account and then another program: `python -I -S become.py UID GID PROGRAM [ARGUMENT...]`.

This is a program of its own because starting a process as somebody else makes Python fork, and a process with gRPC's threads in
it does not survive a fork for sure: gRPC starts threads anew in the child, which end it when they find their files closed.
"""

import os
import sys

NO_SUCH_PROGRAM = 127


def main(uid: int, gid: int, command: list[str]) -> None:
    """Does not return."""
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    try:
        os.execv(command[0], command)  # noqa: S606 - no shell is wanted
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        os._exit(NO_SUCH_PROGRAM)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
