"""A key file that gets another key: interrupted anywhere, doing it again ends in the same place."""

import stat
from pathlib import Path

import pytest

from colonies.errors import KeyFileError
from colonies.key_rotation import KeyFileRotation, new_path_of
from colonies.keys import PrivateKey


def test_the_new_key_is_there_before_and_in_place_after(tmp_path: Path) -> None:
    path = tmp_path / "my.key"
    old = PrivateKey.load_or_create(path)
    rotation = KeyFileRotation(path)
    assert rotation.old.identity == old.identity
    assert PrivateKey.load(path).identity == old.identity
    assert PrivateKey.load(new_path_of(path)).identity == rotation.new.identity
    rotation.finish()
    assert PrivateKey.load(path).identity == rotation.new.identity
    assert PrivateKey.load(tmp_path / "my.key.old").identity == old.identity
    assert sorted(file.name for file in tmp_path.iterdir()) == ["my.key", "my.key.old"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o600}


@pytest.mark.parametrize("breaks_at", [0, 1])
def test_what_was_interrupted_goes_on_with_the_same_new_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, breaks_at: int
) -> None:
    path = tmp_path / "my.key"
    old = PrivateKey.load_or_create(path)
    first = KeyFileRotation(path)
    replaced = 0
    replace = Path.replace

    def breaking(self: Path, target: Path) -> Path:
        nonlocal replaced
        if replaced == breaks_at:
            raise OSError("the machine died")
        replaced += 1
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", breaking)
        with pytest.raises(OSError, match="died"):
            first.finish()
    assert PrivateKey.load(path).identity == old.identity
    again = KeyFileRotation(path)
    assert (again.old.identity, again.new.identity) == (old.identity, first.new.identity)
    again.finish()
    assert PrivateKey.load(path).identity == first.new.identity
    assert PrivateKey.load(again.old_path).identity == old.identity


def test_a_new_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "my.key"
    PrivateKey.load_or_create(path)
    PrivateKey.load_or_create(new_path_of(path))
    new_path_of(path).chmod(0o644)
    with pytest.raises(KeyFileError):
        KeyFileRotation(path)
