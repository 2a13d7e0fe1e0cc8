"""A key file that gets another key. Whatever is interrupted is finished by doing it again.

The new key is in a file beside it before any server hears of it, and takes the old one's place in one step when the server has
taken it; the old key is kept as `<name>.old`, for whoever owns it to delete.
"""

import os
from pathlib import Path

from colonies.keys import PrivateKey


def new_path_of(path: Path) -> Path:
    """Where the new key of a rotation is until the rotation is finished."""
    return path.with_name(f"{path.name}.new")


class KeyFileRotation:
    """One rotation of a key file: `old` and `new`, and `finish` once the server has taken the new one."""

    def __init__(self, path: Path) -> None:
        """Makes the new key, unless one was made already.

        Raises:
            KeyFileError: one of the files cannot be read, or holds no key.
        """
        self._path = path
        self._new_path = new_path_of(path)
        self.old = PrivateKey.load(path)
        self.new = PrivateKey.load_or_create(self._new_path)

    @property
    def old_path(self) -> Path:
        """Where the old key is kept."""
        return self._path.with_name(f"{self._path.name}.old")

    def finish(self) -> None:
        """The file holds the new key from now on."""
        scratch = self._path.with_name(f".{self._path.name}.{os.getpid()}.{os.urandom(4).hex()}")
        os.link(self._path, scratch)
        scratch.replace(self.old_path)
        self._new_path.replace(self._path)
