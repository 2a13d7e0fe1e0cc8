"""The profile file and the environment."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from colonies.errors import KeyFileError, ProfileError
from colonies.keys import PrivateKey
from colonies.profile import Profile, active, cluster_for, config_file, default_profile, load_profiles, save_profile

DEV = Profile(name="dev", host="localhost", port=50081, cluster="c-1", colony="dev", key_file="/k", owner_key_file="/o")


def test_without_a_file_there_are_no_profiles() -> None:
    assert load_profiles() == {}
    assert default_profile() == ""
    with pytest.raises(ProfileError, match="colonies up"):
        active()


def test_saved_profiles_come_back_and_only_their_owner_reads_them() -> None:
    other = Profile(name="other", host="example.org", server_owner_key_file="/s")
    save_profile(DEV)
    save_profile(other, make_default=False)
    assert load_profiles() == {"dev": DEV, "other": other}
    assert default_profile() == "dev"
    assert config_file().stat().st_mode & 0o777 == 0o600
    assert [path.name for path in config_file().parent.iterdir()] == ["profiles.toml"]


def test_the_first_profile_is_the_default() -> None:
    save_profile(DEV, make_default=False)
    assert active() == DEV


texts = st.text(st.characters(exclude_categories=["Cs"]))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)  # it writes files
@given(name=texts, cluster=texts, key_file=texts)
def test_any_text_survives_the_file(name: str, cluster: str, key_file: str) -> None:
    profile = Profile(name=name, cluster=cluster, key_file=key_file)
    save_profile(profile)
    assert load_profiles()[name] == profile
    assert default_profile() == name


def test_which_profile_is_active(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c"):
        save_profile(Profile(name=name), make_default=name == "a")
    assert active().name == "a"
    monkeypatch.setenv("COLONIES_PROFILE", "b")
    assert active().name == "b"
    assert active("c").name == "c"
    with pytest.raises(ProfileError, match=r"'d'.*a, b, c"):
        active("d")


def test_the_environment_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    save_profile(DEV)
    key = PrivateKey.generate()
    changes = {"HOST": "h", "PORT": "7", "CLUSTER": "c-2", "COLONY": "prod", "KEY_FILE": "/x", "KEY": key.hex}
    for name, value in changes.items():
        monkeypatch.setenv(f"COLONIES_{name}", value)
    found = active()
    assert found == Profile("dev", "h", 7, "c-2", "prod", "/x", "/o")
    assert found.load_key().identity == key.identity
    assert key.hex not in repr(found)
    save_profile(found)
    assert key.hex not in config_file().read_text()


def test_plaintext_to_the_host_of_a_profile_is_not_plaintext_to_another(monkeypatch: pytest.MonkeyPatch) -> None:
    save_profile(replace(DEV, tls=False))
    monkeypatch.setenv("COLONIES_HOST", "127.0.0.1")
    assert active().transport() is None
    monkeypatch.setenv("COLONIES_HOST", "far.example")
    with pytest.raises(ProfileError, match=r"plaintext to far\.example"):
        active().transport()
    monkeypatch.setenv("COLONIES_TLS", "off")
    assert active().transport() is None


def test_the_environment_alone_makes_a_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLONIES_COLONY", "dev")
    assert active() == Profile("environment", colony="dev")
    with pytest.raises(ProfileError, match="COLONIES_KEY"):
        active().load_key()


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1", "", "5 ", "\u0665"])
def test_a_port_is_a_number(monkeypatch: pytest.MonkeyPatch, port: str) -> None:
    monkeypatch.setenv("COLONIES_HOST", "h")
    monkeypatch.setenv("COLONIES_PORT", port)
    if not port:  # set to nothing is not set
        assert active().port == 50080
        return
    with pytest.raises(ProfileError, match="COLONIES_PORT"):
        active()


@pytest.mark.parametrize(
    "text",
    ["x", "default = 3", "profiles = 3", "[profiles]\ndev = 3", "[profiles.dev]\nhost = 3", "[profiles.dev]\nport = 'x'"],
)
def test_a_broken_file_is_named(text: str) -> None:
    config_file().parent.mkdir()
    config_file().write_text(text)
    with pytest.raises(ProfileError, match=r"profiles\.toml"):
        active()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1", "LOCALHOST"])
def test_the_cluster_of_an_address(host: str) -> None:
    save_profile(DEV)
    assert cluster_for(host, 50081) == "c-1"


def test_an_unknown_cluster_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    save_profile(DEV)
    for host, port in (("example.org", 50081), ("localhost", 50080)):
        with pytest.raises(ProfileError, match="COLONIES_CLUSTER"):
            cluster_for(host, port)
    save_profile(Profile(name="twin", port=50081, cluster="c-2"))
    with pytest.raises(ProfileError, match="several"):
        cluster_for("localhost", 50081)
    monkeypatch.setenv("COLONIES_CLUSTER", "c-9")
    assert cluster_for("example.org", 1) == "c-9"


def test_keys_of_a_profile(tmp_path: Path) -> None:
    key = PrivateKey.generate()
    key.save(tmp_path / "owner.key")
    profile = Profile(name="p", owner_key_file=str(tmp_path / "owner.key"), key_file=str(tmp_path / "none.key"))
    assert profile.load_owner_key().identity == key.identity
    with pytest.raises(KeyFileError):
        profile.load_key()
    with pytest.raises(ProfileError, match="server_owner_key_file"):
        profile.load_server_owner_key()
