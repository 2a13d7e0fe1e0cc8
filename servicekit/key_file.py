"""A service's own key, which may be replaced in its file while the service runs."""

import asyncio
from pathlib import Path

import structlog

from colonies.errors import KeyFileError
from colonies.keys import PrivateKey
from colonies.signing import Signer

log = structlog.get_logger()

LOOK_EVERY_S = 1.0


class KeyFile:
    """The key of now. While the file cannot be read, or others could read it too, the key from before signs on."""

    def __init__(self, path: Path) -> None:
        """Reads the file.

        Raises:
            KeyFileError: it cannot be read, can be read by others, or holds no key.
        """
        self._path = path
        # Of the file: the version that was read, and the last one of which something was said.
        self._read = self._told = self._version()
        self.key = PrivateKey.load(path)
        self._signers: list[Signer] = []

    def signs_for(self, signer: Signer) -> Signer:
        """Gives a signer every new key."""
        self._signers.append(signer)
        return signer

    async def run(self) -> None:
        """Looks at the file until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            self.look()

    def look(self) -> None:
        """Reads the file again if it is not the one that was read before; one that could not be read, each time."""
        version = self._version()
        if version == self._read:
            return
        try:
            key = PrivateKey.load(self._path)
        except KeyFileError as error:
            # Told once for each version of the file, whatever is wrong with it: why it cannot be read may pass.
            if version != self._told:
                self._told = version
                log.error("cannot take the new key; signing with the one from before", error=str(error))  # noqa: TRY400 - no trace needed
            return
        self._read = self._told = version
        if key.identity == self.key.identity:
            return
        self.key = key
        for signer in self._signers:
            signer.key = key
        log.info("signing with a new key", identity=key.identity)

    def _version(self) -> tuple[int, ...] | None:
        """What changes when the file, or who may read it, does; None while there is none."""
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size
