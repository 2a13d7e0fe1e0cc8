"""Profiles: how a program finds its server, its colony and its keys.

A profile is an entry in a TOML file that `colonies up` and `colonies profile` write. Environment variables override its
fields one by one:

    COLONIES_CONFIG    the profile file; default colonies/profiles.toml in $XDG_CONFIG_HOME or ~/.config
    COLONIES_PROFILE   which profile; default the file's own default
    COLONIES_HOST      host name or address
    COLONIES_PORT      port
    COLONIES_CLUSTER   cluster id, the audience of signatures
    COLONIES_COLONY    colony
    COLONIES_KEY       the caller's private key, 64 hex digits
    COLONIES_KEY_FILE  or the file that holds it
    COLONIES_TLS       "on" or "off"
    COLONIES_CA_FILE   certificates to trust (PEM); implies TLS
    COLONIES_CERT_FILE, COLONIES_CERT_KEY_FILE
                       the client's own certificate and its key, for a front door that asks for one; imply TLS

Plaintext is used to an address of this machine unless TLS is asked for, and to any other only when COLONIES_TLS or the
profile's `tls` says that it is off: nobody can forge a signed call, but whoever sits between could read it.
"""

import ipaddress
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from colonies.errors import ProfileError
from colonies.keys import PrivateKey
from colonies.tls import Tls

DEFAULT_HOST = "localhost"
DEFAULT_PORT = 50080
MAX_PORT = 65535

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1", "[::1]"})
_OVERRIDES = ("HOST", "PORT", "CLUSTER", "COLONY", "KEY", "KEY_FILE")
_TLS_FILES = ("ca_file", "cert_file", "cert_key_file")
_TEXT_FIELDS = ("host", "cluster", "colony", "key_file", "owner_key_file", "server_owner_key_file", *_TLS_FILES)


@dataclass(frozen=True, slots=True)
class Profile:
    """One server, one colony, and the files of the keys to use there.

    `cluster` is the server's id, the audience of every signature. `key_file` is the client's own key, usually a
    user's or the colony owner's; `owner_key_file` the colony owner's; `server_owner_key_file` the server owner's.
    Unknown ones are empty. `tls` asks for TLS or for plaintext; None leaves it to whether there are files for it, which
    are those of `colonies.tls.Tls`.
    """

    name: str
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    cluster: str = ""
    colony: str = ""
    key_file: str = ""
    owner_key_file: str = ""
    server_owner_key_file: str = ""
    tls: bool | None = None
    ca_file: str = ""
    cert_file: str = ""
    cert_key_file: str = ""
    # From COLONIES_KEY. Never shown and never written to the file.
    key: PrivateKey | None = field(default=None, repr=False, compare=False)

    def load_key(self) -> PrivateKey:
        """The client's own key.

        Raises:
            ProfileError: the profile names none.
            KeyFileError: the file cannot be read, or holds no key.
        """
        if self.key is not None:
            return self.key
        return self._load(self.key_file, "key_file", "set COLONIES_KEY or COLONIES_KEY_FILE")

    def load_owner_key(self) -> PrivateKey:
        """The colony owner's key. Errors as for `load_key`."""
        return self._load(self.owner_key_file, "owner_key_file", "this needs the colony owner's key")

    def load_server_owner_key(self) -> PrivateKey:
        """The server owner's key. Errors as for `load_key`."""
        return self._load(self.server_owner_key_file, "server_owner_key_file", "this needs the server owner's key")

    def transport(self) -> Tls | None:
        """The TLS to reach the server with; None for plaintext.

        Raises:
            ProfileError: it would be plaintext to another machine, and nobody has asked for that; or half of a client's
                certificate is missing.
        """
        if bool(self.cert_file) != bool(self.cert_key_file):
            absent = "cert_key_file" if self.cert_file else "cert_file"
            msg = f"profile {self.name!r} has no {absent}: a certificate and its private key belong together"
            raise ProfileError(msg)
        if self.tls or (self.tls is None and (self.ca_file or self.cert_file)):
            return Tls(self.ca_file, self.cert_file, self.cert_key_file)
        if self.tls is None and not is_loopback(self.host):
            msg = (
                f"plaintext to {self.host} could be read on the way: give --ca-file FILE (COLONIES_CA_FILE) or --tls "
                "(COLONIES_TLS=on), or --no-tls (COLONIES_TLS=off) if that network is trusted"
            )
            raise ProfileError(msg)
        return None

    def with_transport_of_address(self) -> "Profile":
        """This profile, with what the environment, or else the saved profile of its host and port, says of TLS.

        Raises:
            ProfileError: several profiles have this address, and say different things.
        """
        overrides = _tls_overrides()
        if overrides.get("tls") is False:
            return replace(self, **overrides)
        fields_of_tls = ("tls", *_TLS_FILES)
        found = {
            tuple(getattr(other, name) for name in fields_of_tls)
            for other in load_profiles().values()
            if other.port == self.port and _same_host(other.host, self.host)
        }
        if len(found) > 1 and not overrides:
            msg = (
                f"several profiles in {config_file()} say different things of TLS to {self.host}:{self.port}: use one of them, "
                "or set COLONIES_TLS"
            )
            raise ProfileError(msg)
        known = found.pop() if len(found) == 1 else (None, "", "", "")
        return replace(self, **{**dict(zip(fields_of_tls, known, strict=True)), **overrides})

    def _load(self, path: str, what: str, remedy: str) -> PrivateKey:
        if not path:
            msg = f"profile {self.name!r} has no {what}: add it to {config_file()}, or {remedy}"
            raise ProfileError(msg)
        return PrivateKey.load(Path(path).expanduser())


def config_file() -> Path:
    """Where profiles are kept."""
    if explicit := os.environ.get("COLONIES_CONFIG"):
        return Path(explicit).expanduser()
    return Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "colonies" / "profiles.toml"


def config_dir() -> Path:
    """The folder of the profile file; executors keep their keys below it."""
    return config_file().parent


def load_profiles() -> dict[str, Profile]:
    """Every profile in the file, by name; empty when there is no file.

    Raises:
        ProfileError: the file cannot be read, is not TOML, or holds something that is no profile.
    """
    return _read()[1]


def default_profile() -> str:
    """Name of the file's default profile; empty when it has none. Errors as for `load_profiles`."""
    return _read()[0]


def save_profile(profile: Profile, make_default: bool = True) -> None:
    """Adds a profile to the file, or changes the one of this name. The file (mode 0600) is replaced whole or not at
    all.

    Raises:
        ProfileError: the file that is there cannot be read, or the new one cannot be written.
    """
    default, profiles = _read()
    profiles[profile.name] = profile
    text = _to_toml(profile.name if make_default or not default else default, profiles)
    path = config_file()
    scratch = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)
    except OSError as error:
        msg = f"cannot write the profile file {path}: {error}"
        raise ProfileError(msg) from error


def active(name: str | None = None) -> Profile:
    """The profile to use: the argument, else COLONIES_PROFILE, else the file's default; with the environment's
    overrides.

    Without a profile file the environment alone can make one: COLONIES_HOST and its companions.

    Raises:
        ProfileError: there is no such profile, or nothing to make one from.
    """
    default, profiles = _read()
    wanted = name or os.environ.get("COLONIES_PROFILE") or default
    if wanted:
        if wanted not in profiles:
            known = ", ".join(sorted(profiles)) or "none"
            msg = f"there is no profile {wanted!r} in {config_file()} (profiles there: {known})"
            raise ProfileError(msg)
        return _overridden(profiles[wanted])
    if any(os.environ.get(f"COLONIES_{key}") for key in _OVERRIDES):
        return _overridden(Profile(name="environment"))
    msg = (
        f"no profile to reach a server with: start one with `colonies up`, or put a profile into {config_file()}, "
        "or set COLONIES_HOST, COLONIES_PORT, COLONIES_CLUSTER, COLONIES_COLONY and COLONIES_KEY_FILE"
    )
    raise ProfileError(msg)


def cluster_for(host: str, port: int) -> str:
    """The cluster id, which every signature names, of the server at an address.

    COLONIES_CLUSTER if set, else that of the profile with this host and port; localhost, 127.0.0.1 and ::1 are one
    host.

    Raises:
        ProfileError: it is not known; the message says what to do.
    """
    if cluster := os.environ.get("COLONIES_CLUSTER"):
        return cluster
    found = {
        profile.cluster
        for profile in load_profiles().values()
        if profile.cluster and profile.port == port and _same_host(profile.host, host)
    }
    if len(found) == 1:
        return found.pop()
    problem = "several profiles name different ones" if found else "no profile names it"
    msg = (
        f"the cluster id of {host}:{port} is not known ({problem} in {config_file()}): pass cluster=..., or set "
        "COLONIES_CLUSTER; whoever runs the server can tell it (`colonies status`)"
    )
    raise ProfileError(msg)


def tls_for(host: str, port: int) -> Tls | None:
    """The TLS to reach the server at an address with; None for plaintext.

    As the profile with this host and port has it, with the environment's overrides.

    Raises:
        ProfileError: profiles contradict each other; or as for `Profile.transport`.
    """
    return Profile("", host, port).with_transport_of_address().transport()


def is_loopback(host: str) -> bool:
    """Whether a host is this machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() in _LOOPBACK


def _same_host(one: str, other: str) -> bool:
    one, other = one.lower(), other.lower()
    return one == other or (one in _LOOPBACK and other in _LOOPBACK)


def _overridden(profile: Profile) -> Profile:
    changes: dict[str, Any] = {}
    if (host := os.environ.get("COLONIES_HOST")) and profile.tls is False and not _same_host(host, profile.host):
        # That a network may be trusted with plaintext was said of the profile's own host.
        changes["tls"] = None
    for key in ("HOST", "CLUSTER", "COLONY", "KEY_FILE"):
        if value := os.environ.get(f"COLONIES_{key}"):
            changes[key.lower()] = value
    if port_text := os.environ.get("COLONIES_PORT"):
        changes["port"] = _port(port_text, "COLONIES_PORT")
    if key_text := os.environ.get("COLONIES_KEY"):
        changes["key"] = PrivateKey.from_hex(key_text)
    return replace(profile, **{**changes, **_tls_overrides()})


def _tls_overrides() -> dict[str, Any]:
    changes: dict[str, Any] = {name: value for name in _TLS_FILES if (value := os.environ.get(f"COLONIES_{name.upper()}"))}
    if choice := os.environ.get("COLONIES_TLS"):
        if choice not in ("on", "off"):
            msg = f"COLONIES_TLS is {choice!r}: it is on or off"
            raise ProfileError(msg)
        changes["tls"] = choice == "on"
    elif changes:
        changes["tls"] = True
    return changes


def _port(value: object, where: str) -> int:
    text = str(value)
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MAX_PORT):
        msg = f"{where} is {text!r}: a port is a number from 1 to {MAX_PORT}"
        raise ProfileError(msg)
    return int(text)


def _read() -> tuple[str, dict[str, Profile]]:
    path = config_file()
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return "", {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        msg = f"cannot read the profile file {path}: {error}"
        raise ProfileError(msg) from error
    default = data.get("default", "")
    entries = data.get("profiles", {})
    if not isinstance(default, str) or not isinstance(entries, dict):
        msg = f"{path}: `default` must be a text and `profiles` a table"
        raise ProfileError(msg)
    return default, {name: _parse(name, entry, path) for name, entry in entries.items()}


def _parse(name: str, entry: object, path: Path) -> Profile:
    where = f"{path}: profile {name!r}"
    if not isinstance(entry, Mapping):
        msg = f"{where} must be a table"
        raise ProfileError(msg)
    values: dict[str, Any] = {}
    for key in _TEXT_FIELDS:
        if key not in entry:
            continue
        if not isinstance(entry[key], str):
            msg = f"{where}: {key} must be a text"
            raise ProfileError(msg)
        values[key] = entry[key]
    if "port" in entry:
        values["port"] = _port(entry["port"], f"{where}: port")
    if "tls" in entry:
        if not isinstance(entry["tls"], bool):
            msg = f"{where}: tls must be true or false"
            raise ProfileError(msg)
        values["tls"] = entry["tls"]
    return Profile(name=name, **values)


def _to_toml(default: str, profiles: Mapping[str, Profile]) -> str:
    lines = [f"default = {_quoted(default)}"]
    for name, profile in sorted(profiles.items()):
        lines += ["", f"[profiles.{_quoted(name)}]"]
        for item in fields(profile):
            value = getattr(profile, item.name)
            if item.name == "port":
                lines.append(f"port = {value}")
            elif item.name == "tls" and value is not None:
                lines.append(f"tls = {str(value).lower()}")
            elif item.name in _TEXT_FIELDS and value:
                lines.append(f"{item.name} = {_quoted(value)}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A TOML basic string, in which control characters must be escaped."""
    escaped = "".join(
        f"\\{char}" if char in '"\\' else f"\\u{ord(char):04x}" if char < " " or char == "\x7f" else char for char in text
    )
    return f'"{escaped}"'
