"""A service's key file that is replaced, taken away and spoilt under it."""

import errno
import os
from pathlib import Path

import pytest
import structlog

from colonies.errors import KeyFileError
from colonies.keys import PrivateKey
from colonies.signing import Signer
from servicekit.key_file import KeyFile

OLD, NEW = PrivateKey(b"\x01" * 32), PrivateKey(b"\x02" * 32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A key file."""
    made = tmp_path / "service.key"
    OLD.save(made)
    return made


def put(key: PrivateKey, path: Path, *, mode: int = 0o600) -> None:
    """Replaces a key file in one step."""
    scratch = path.with_name("scratch")
    key.save(scratch)
    scratch.chmod(mode)
    scratch.replace(path)


def test_signers_get_the_key_that_took_the_old_ones_place(path: Path) -> None:
    file = KeyFile(path)
    signer = file.signs_for(Signer(file.key, "test"))
    file.look()
    assert signer.key.identity == OLD.identity
    put(NEW, path)
    file.look()
    assert signer.key.identity == file.key.identity == NEW.identity


def test_with_a_file_that_is_no_good_the_old_key_signs_on_and_that_is_said_once(path: Path) -> None:
    file = KeyFile(path)
    signer = file.signs_for(Signer(file.key, "test"))

    def said() -> list[str]:
        with structlog.testing.capture_logs() as lines:
            file.look()
            file.look()
        assert signer.key.identity == OLD.identity
        return [line["log_level"] for line in lines]

    put(NEW, path, mode=0o640)
    assert said() == ["error"]
    path.unlink()
    assert said() == ["error"]
    path.touch(mode=0o600)
    assert said() == ["error"]
    put(NEW, path)
    file.look()
    assert signer.key.identity == NEW.identity


def test_a_new_key_that_could_not_be_read_for_a_while_is_read_afterwards(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing about the file changes in between: it is the machine that had no file descriptors left, say."""
    file = KeyFile(path)
    signer = file.signs_for(Signer(file.key, "test"))

    def too_many_files(*_: object, **__: object) -> str:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    put(NEW, path)
    with monkeypatch.context() as failing, structlog.testing.capture_logs() as lines:
        failing.setattr(Path, "read_text", too_many_files)
        for _ in range(3):
            file.look()
    assert [line["log_level"] for line in lines] == ["error"]
    assert signer.key.identity == OLD.identity
    file.look()
    assert signer.key.identity == NEW.identity


def test_a_service_does_not_begin_with_a_file_that_is_no_good(path: Path) -> None:
    path.chmod(0o644)
    with pytest.raises(KeyFileError):
        KeyFile(path)
