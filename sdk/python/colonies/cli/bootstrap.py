"""What makes a fresh stack usable: a colony, its user, and a profile. Repeating it changes nothing."""

import getpass
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colonies.cli.failure import CliError, ExitCode
from colonies.client import AsyncClient
from colonies.errors import AlreadyExistsError
from colonies.keys import PrivateKey
from colonies.profile import Profile, save_profile
from colonies.tls import Tls

LOCAL_PROFILE = "local"
DEV_COLONY = "dev"
READY_SECONDS = 30.0

_NO_NAME = re.compile(r"[^A-Za-z0-9._-]")
_MAX_NAME = 128
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1", "[::]": "::1"}  # noqa: S104 - where to connect to, not what to listen on


@dataclass(frozen=True, slots=True)
class Address:
    """Where a stack listens, the cluster id that signatures for it name, and whom to trust if it speaks TLS."""

    host: str
    port: int
    cluster: str
    ca_file: str = ""

    @classmethod
    def of(cls, state: Any) -> "Address":
        """That of a deploy.local.state.StackState."""
        host, _, port = state.address.rpartition(":")
        return cls(host=_WILDCARDS.get(host, host), port=int(port), cluster=state.cluster_id, ca_file=state.ca_file)

    @property
    def tls(self) -> Tls | bool:
        """How clients are to connect."""
        return Tls(self.ca_file) if self.ca_file else False

    def client(self, colony: str, key: PrivateKey) -> AsyncClient:
        """A client that gives the stack a moment: right after its start, services still learn of each other."""
        return AsyncClient(self.host, self.port, colony, key, self.cluster, retry_for=READY_SECONDS, tls=self.tls)


@dataclass(frozen=True, slots=True)
class KeyFiles:
    """The key files of one colony of a local stack."""

    server_owner: Path
    colony_owner: Path
    user: Path

    @classmethod
    def in_data_dir(cls, data_dir: Path) -> "KeyFiles":
        """Those that the stack made, and the user's beside them."""
        keys = data_dir / "keys"
        return cls(keys / "server-owner.key", keys / "colony-owner.key", keys / "user.key")


def user_name() -> str:
    """The name of whoever runs this, as a Name."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        # A container may run under a number that has no name.
        name = f"uid-{os.getuid()}"
    fitting = _NO_NAME.sub("-", name)[:_MAX_NAME]
    return fitting if fitting[:1].isalnum() else f"u{fitting}"[:_MAX_NAME]


async def ensure_colony(address: Address, name: str, files: KeyFiles, *, user: str) -> None:
    """Makes sure that a colony exists, owned by the owner's key file, and has a user with the user's key file.

    Raises:
        CliError: the colony has another owner, or the user's name another key.
        KeyFileError: a key file cannot be used.
        RpcError: the server refused.
    """
    server_owner = PrivateKey.load(files.server_owner)
    owner = PrivateKey.load_or_create(files.colony_owner)
    member = PrivateKey.load_or_create(files.user)
    async with address.client(name, server_owner) as client:
        try:
            await client.add_colony(name, owner)
        except AlreadyExistsError as error:
            msg = f"the colony {name!r} exists already, and {files.colony_owner} is not its owner's key"
            raise CliError(msg, ExitCode.CONFLICT) from error
    async with address.client(name, owner) as client:
        try:
            await client.add_user(user, member)
        except AlreadyExistsError as error:
            if await _is_user(client, member.identity):
                return  # under another name: whoever ran this first, before a change of account
            msg = f"the colony {name!r} has another user {user!r}, whose key is not {files.user}"
            raise CliError(msg, ExitCode.CONFLICT) from error


async def _is_user(client: AsyncClient, identity: str) -> bool:
    return any([user.identity == identity async for user in client.list_users()])


def save_colony_profile(name: str, colony: str, address: Address, files: KeyFiles, *, make_default: bool) -> None:
    """Saves a profile for a colony of a local stack."""
    profile = Profile(
        name=name,
        host=address.host,
        port=address.port,
        cluster=address.cluster,
        colony=colony,
        key_file=str(files.user),
        owner_key_file=str(files.colony_owner),
        server_owner_key_file=str(files.server_owner),
        tls=bool(address.ca_file),
        ca_file=address.ca_file,
    )
    save_profile(profile, make_default=make_default)


async def make_usable(address: Address, data_dir: Path) -> None:
    """What follows every start of a stack: the colony "dev", its user, and the profile "local" as the default one.

    Raises:
        CliError, KeyFileError, RpcError: as for `ensure_colony`.
        ProfileError: the profile cannot be saved.
    """
    files = KeyFiles.in_data_dir(data_dir)
    await ensure_colony(address, DEV_COLONY, files, user=user_name())
    save_colony_profile(LOCAL_PROFILE, DEV_COLONY, address, files, make_default=True)
