"""A connection for one command: the profile, what the command line says otherwise, and the key for the role."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

from colonies.cli.failure import usage
from colonies.cli.options import Options
from colonies.client import AsyncClient
from colonies.errors import ProfileError
from colonies.keys import PrivateKey
from colonies.profile import Profile, active, cluster_for

Result = TypeVar("Result")

# A person waits at the other end: ride out a hiccup, but not an outage.
RETRY_SECONDS = 3.0


class Role(Enum):
    """In which role a command signs; each has its key file in the profile."""

    MEMBER = "key_file"
    COLONY_OWNER = "owner_key_file"
    SERVER_OWNER = "server_owner_key_file"


@dataclass(frozen=True, slots=True)
class Connection:
    """An open connection, with the profile it was made from."""

    client: AsyncClient
    profile: Profile

    @property
    def colony(self) -> str:
        """The colony that the command is about.

        Raises:
            CliError: none is given.
        """
        if not self.profile.colony:
            msg = "no colony: give --colony NAME, or a profile that has one"
            raise usage(msg)
        return self.profile.colony

    @property
    def cluster(self) -> str:
        """The server's cluster id."""
        return self.client.cluster

    @property
    def key(self) -> PrivateKey:
        """Who signs."""
        return self.client.key

    @property
    def auth(self) -> Any:
        """The auth service's stub."""
        return self.client.auth

    @property
    def registry(self) -> Any:
        """The registry service's stub."""
        return self.client.registry

    @property
    def scheduler(self) -> Any:
        """The scheduler service's stub."""
        return self.client.scheduler

    @property
    def cron(self) -> Any:
        """The cron service's stub."""
        return self.client.cron

    @property
    def generator(self) -> Any:
        """The stub of the cron service's generators."""
        return self.client.generator

    async def call(self, method: Any, request: Any, *, gone: Any = None) -> Any:
        """Makes a unary call of one of the stubs, riding out short outages.

        Args:
            method: the stub's method.
            request: its request.
            gone: for removals, the answer when a try without an answer turns out to have done it.
        """
        return await self.client.call(method, request, gone=gone)


def settled(options: Options) -> Profile:
    """The profile of this command: the active one, with what the command line says otherwise.

    Raises:
        ProfileError: there is no such profile, or none at all and the command line does not say enough.
    """
    try:
        profile = active(options.profile)
    except ProfileError:
        # A host or a key on the command line is enough to begin with; what is still missing is named when it is needed.
        if options.profile or os.environ.get("COLONIES_PROFILE") or (options.host is None and options.key_file is None):
            raise
        profile = Profile(name="command line")
    moved = (options.host or profile.host, options.port or profile.port) != (profile.host, profile.port)
    profile = replace(
        profile,
        host=options.host or profile.host,
        port=options.port or profile.port,
        colony=options.colony or profile.colony,
        # Another address is another server, until a profile says what it is called.
        cluster=options.cluster or ("" if moved else profile.cluster),
    )
    if moved:
        # And whom to trust there.
        profile = profile.with_transport_of_address()
    if given := tls_options(options):
        profile = replace(profile, **given)
    if options.key_file is not None:
        path = str(options.key_file)
        profile = replace(profile, key=None, key_file=path, owner_key_file=path, server_owner_key_file=path)
    return profile


def tls_options(options: Options) -> dict[str, Any]:
    """What the command line says of TLS, as fields of a profile."""
    files = {"ca_file": options.ca_file, "cert_file": options.cert_file, "cert_key_file": options.cert_key_file}
    given: dict[str, Any] = {name: str(path.expanduser().absolute()) for name, path in files.items() if path is not None}
    if options.tls is not None:
        given["tls"] = options.tls
    elif given:
        given["tls"] = True
    return given


def key_for(profile: Profile, role: Role) -> PrivateKey:
    """The key to sign with. Where the role's own is not named the member's must do, which may be just that key.

    Raises:
        ProfileError, KeyFileError: there is none, or it cannot be read.
    """
    match role:
        case Role.COLONY_OWNER if profile.owner_key_file:
            return profile.load_owner_key()
        case Role.SERVER_OWNER if profile.server_owner_key_file:
            return profile.load_server_owner_key()
    return profile.load_key()


def owner_key_path(profile: Profile) -> Path | None:
    """The colony owner's key file in a profile, if it names one."""
    return Path(profile.owner_key_file).expanduser() if profile.owner_key_file else None


@asynccontextmanager
async def connected(options: Options, role: Role = Role.MEMBER) -> AsyncIterator[Connection]:
    """A connection as the profile and the command line say.

    Raises:
        ProfileError: something needed is not known.
        KeyFileError: the key cannot be read.
    """
    profile = settled(options)
    cluster = profile.cluster or cluster_for(profile.host, profile.port)
    key = key_for(profile, role)
    tls = profile.transport() or False
    async with AsyncClient(
        profile.host, profile.port, profile.colony, key, cluster, retry_for=RETRY_SECONDS, tls=tls
    ) as client:
        yield Connection(client=client, profile=profile)


def asked(options: Options, ask: Callable[[Connection], Awaitable[Result]]) -> Result:
    """What `ask` finds out over a connection of its own, about a colony.

    Raises:
        CliError: no colony is given.
    """

    async def call() -> Result:
        async with connected(options) as here:
            # Without a colony the request would be refused with a field name; say it in words first.
            _ = here.colony
            return await ask(here)

    return asyncio.run(call())
