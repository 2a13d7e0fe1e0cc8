"""Whom `colonies audit verify` trusts: those that the command line names; else those that this machine knows."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from colonies.audit.reading import read_header
from colonies.audit.records import MalformedError, Record
from colonies.audit.trust import Trust
from colonies.cli.arguments import is_identity
from colonies.cli.connection import settled
from colonies.cli.failure import CliError, usage
from colonies.cli.local_stack import LocalStack
from colonies.cli.options import Options
from colonies.errors import ColoniesError
from colonies.keys import PrivateKey
from colonies.profile import Profile

_SCHEDULER, _SERVER_OWNER, _CRON = "service-scheduler", "server-owner", "service-cron"
Given = Sequence[str] | None


@dataclass(frozen=True, slots=True)
class Named:
    """Those that the command line names; None for what it says nothing of."""

    sealers: Given
    owners: Given
    server_owners: Given
    crons: Given


def trusted(options: Options, named: Named, data_dir: Path | None, file: BinaryIO) -> Trust:
    """Whom to trust with a file, which is at its beginning before and after.

    Raises:
        CliError: what is named is no identity, or too little is known.
    """
    sealers, owners = _identities(named.sealers, "--sealer"), _identities(named.owners, "--owner")
    server_owners, crons = _identities(named.server_owners, "--server-owner"), _identities(named.crons, "--cron")
    header = _header(file)
    if not header:
        # It is no audit file, whoever is trusted.
        return Trust(sealers, owners, server_owners, crons)
    stack = _of_local_stack(data_dir, header)
    trust = Trust(
        sealers or _one(stack, _SCHEDULER),
        owners or _of_profile(options, header, Profile.load_owner_key),
        server_owners or _one(stack, _SERVER_OWNER) | _of_profile(options, header, Profile.load_server_owner_key),
        crons or _one(stack, _CRON),
    )
    if not trust.sealers:
        msg = "whom to trust with the seal is not known: give --sealer IDENTITY, the scheduler's"
        raise usage(msg)
    if not trust.owners and not trust.server_owners:
        msg = "who may vouch for members is not known: give --owner IDENTITY, the colony owner's, or --server-owner IDENTITY"
        raise usage(msg)
    return trust


def _identities(given: Given, name: str) -> frozenset[str]:
    for one in given or ():
        if not is_identity(one):
            msg = f"{name}: {one!r} is no identity (64 hex digits)"
            raise usage(msg)
    return frozenset(one.lower() for one in given or ())


def _header(file: BinaryIO) -> Record:
    """The header of a file; empty if it has none."""
    try:
        return read_header(file).record
    except MalformedError:
        return {}
    finally:
        file.seek(0)


def _of_local_stack(data_dir: Path | None, header: Record) -> dict[str, str]:
    """The identities of the local stack by name, if the file is of its cluster."""
    # Without the server part there is no local stack to speak of.
    with suppress(CliError):
        state = LocalStack(data_dir).status().state
        if state is not None and state.cluster_id == header["cluster"]:
            return dict(state.identities)
    return {}


def _one(stack: dict[str, str], name: str) -> frozenset[str]:
    return frozenset({stack[name]} if name in stack else ())


def _of_profile(options: Options, header: Record, load: Callable[[Profile], PrivateKey]) -> frozenset[str]:
    """The identity of a key of the profile, if the file is of its cluster and colony."""
    # Without a profile, or its key, there is one less to trust, and the check says so.
    with suppress(ColoniesError):
        # A key file on the command line signs calls in whatever role; that makes nobody an owner.
        profile = settled(replace(options, key_file=None))
        if (profile.cluster, profile.colony) == (header["cluster"], header["colony"]):
            return frozenset({load(profile).identity})
    return frozenset()
