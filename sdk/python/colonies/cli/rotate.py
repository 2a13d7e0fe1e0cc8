"""`colonies key rotate`: another key for whoever has one."""

import asyncio
from datetime import UTC
from pathlib import Path
from typing import Annotated

import typer

from colonies.auth.v1.auth_service_pb2 import RotateKeyResponse
from colonies.cli.connection import RETRY_SECONDS, Role, settled
from colonies.cli.failure import usage
from colonies.cli.options import options_of
from colonies.cli.output import print_fields, print_json
from colonies.client import AsyncClient
from colonies.client.rotation import KEEP_OLD_MS
from colonies.key_rotation import KeyFileRotation
from colonies.keys import PrivateKey
from colonies.profile import Profile, cluster_for


def rotate(
    ctx: typer.Context,
    owner: Annotated[bool, typer.Option("--owner", help="The colony owner's key.")] = False,
    server_owner: Annotated[bool, typer.Option("--server-owner", help="The server owner's key.")] = False,
    service: Annotated[bool, typer.Option("--service", help="A service's key: name its file with --key-file.")] = False,
    new_key_file: Annotated[
        Path | None,
        typer.Option(help="Where the new key is, or is to be made; it stays there, and the old key's file as it is."),
    ] = None,
    keep_old_ms: Annotated[
        int, typer.Option(min=0, max=3_600_000, help="How long the old key is still good; 0 if it has leaked.")
    ] = KEEP_OLD_MS,
) -> None:
    """Put a new key in the place of the one that you have; by default that of the profile's member.

    The old key stays beside the new one as <name>.old until you delete it. If this is interrupted, run it again.
    """
    if owner + server_owner + service > 1:
        msg = "--owner, --server-owner and --service exclude each other"
        raise usage(msg)
    options = options_of(ctx)
    role = Role.COLONY_OWNER if owner else Role.SERVER_OWNER if server_owner else Role.MEMBER
    if service and options.key_file is None:
        msg = "--service needs --key-file FILE"
        raise usage(msg)
    profile = settled(options)
    path = _key_path(profile, role)
    file = KeyFileRotation(path) if new_key_file is None else None
    old, new = (file.old, file.new) if file else (PrivateKey.load(path), PrivateKey.load_or_create(new_key_file or path))
    if not (server_owner or service) and not profile.colony:
        msg = "no colony: give --colony NAME, or a profile that has one"
        raise usage(msg)
    colony = "" if server_owner or service else profile.colony
    cluster = profile.cluster or cluster_for(profile.host, profile.port)

    async def make() -> RotateKeyResponse:
        tls = profile.transport() or False
        async with AsyncClient(profile.host, profile.port, colony, old, cluster, retry_for=RETRY_SECONDS, tls=tls) as client:
            return await client.rotate_key(new, keep_old_ms=keep_old_ms)

    made = asyncio.run(make())
    if file:
        file.finish()
    until = made.old_key_valid_until.ToDatetime(UTC).isoformat()
    where = str(new_key_file or path)
    if options.as_json:
        print_json({"key_file": where, "key": made.key_identity, "identity": made.identity, "old_key_valid_until": until})
        return
    print_fields(
        [
            ("Known as", f"{made.name}, {made.identity}"),
            ("New key", made.key_identity),
            ("In", where),
            ("Old key", str(file.old_path if file else path)),
            ("Good until", until),
        ]
    )


def _key_path(profile: Profile, role: Role) -> Path:
    """The file of the key that signs in this role."""
    if profile.key is not None and (role is Role.MEMBER or not getattr(profile, role.value)):
        msg = "the key is in COLONIES_KEY; put it into a file, and name that with --key-file"
        raise usage(msg)
    named = getattr(profile, role.value) or profile.key_file
    if not named:
        msg = f"profile {profile.name!r} names no key file; give --key-file FILE"
        raise usage(msg)
    return Path(named).expanduser()
