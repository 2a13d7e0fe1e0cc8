"""Ed25519 keys and the identities that stand for them.

An identity is the SHA3-256 digest of a raw Ed25519 public key, written as 64 lower-case hex digits. Services store
identities only; a private key never leaves the machine of its owner.
"""

import hashlib
import os
import stat
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from colonies.errors import KeyFileError

PRIVATE_KEY_HEX_DIGITS = 64
PUBLIC_KEY_BYTES = 32


def identity_of(public_key: bytes) -> str:
    """The identity (64 hex digits) of a raw 32-byte Ed25519 public key."""
    return hashlib.sha3_256(public_key).hexdigest()


class PrivateKey:
    """An Ed25519 private key, with its public key and identity worked out once."""

    __slots__ = ("_key", "_seed", "identity", "public_key")

    def __init__(self, seed: bytes) -> None:
        self._seed = seed
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public_key: bytes = self._key.public_key().public_bytes_raw()
        self.identity: str = identity_of(self.public_key)

    @classmethod
    def generate(cls) -> Self:
        """A new key from the operating system's random source."""
        return cls(os.urandom(PUBLIC_KEY_BYTES))

    @classmethod
    def from_hex(cls, text: str) -> Self:
        """Reads the 64 hex digits that `hex` writes.

        Raises:
            KeyFileError: the text is not 64 hex digits.
        """
        text = text.strip()
        try:
            seed = bytes.fromhex(text)
        except ValueError:
            seed = b""
        if len(text) != PRIVATE_KEY_HEX_DIGITS or len(seed) != PUBLIC_KEY_BYTES:
            msg = f"a private key is {PRIVATE_KEY_HEX_DIGITS} hex digits; this text is not (it has {len(text)} characters)"
            raise KeyFileError(msg)
        return cls(seed)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads a key file. Files that others may read are refused.

        Raises:
            KeyFileError: the file is missing, readable by group or others, or holds no key.
        """
        try:
            mode = path.stat().st_mode
            text = path.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            msg = f"cannot read the key file {path}: {error}"
            raise KeyFileError(msg) from error
        if stat.S_IMODE(mode) & 0o077:
            msg = f"the key file {path} can be read by others (mode {stat.S_IMODE(mode):04o}); run: chmod 600 {path}"
            raise KeyFileError(msg)
        try:
            return cls.from_hex(text)
        except KeyFileError as error:
            msg = f"the key file {path} holds no key: {error}"
            raise KeyFileError(msg) from error

    @classmethod
    def load_or_create(cls, path: Path) -> Self:
        """The key in this file; made (mode 0600) when there is none yet."""
        if path.exists():
            return cls.load(path)
        key = cls.generate()
        try:
            key.save(path)
        except FileExistsError:
            return cls.load(path)  # another process made it first
        return key

    def save(self, path: Path) -> None:
        """Writes the key to a new file that only its owner may read (mode 0600).

        The file appears whole or not at all, so that a reader never sees half a key.

        Raises:
            FileExistsError: the file exists; a key is never overwritten.
        """
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        scratch = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(self.hex + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.link(scratch, path)
        finally:
            scratch.unlink()

    @property
    def hex(self) -> str:
        """The private key as 64 hex digits. Keep it secret."""
        return self._seed.hex()

    def sign(self, message: bytes) -> bytes:
        """The 64-byte Ed25519 signature of a message."""
        return self._key.sign(message)

    def __repr__(self) -> str:
        return f"PrivateKey(identity={self.identity})"
