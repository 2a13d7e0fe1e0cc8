"""`colonies user`: members that submit and read."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from colonies.auth.v1 import auth_service_pb2 as auth
from colonies.cli.connection import Role, connected
from colonies.cli.moments import local_if_set
from colonies.cli.options import Options, group, options_of
from colonies.cli.output import print_fields, print_json, print_table, say
from colonies.cli.paging import DEFAULT_LIMIT, Limit, collected
from colonies.cli.plain import plain
from colonies.cli.proofs import Proof, proof_given_or_made, to_text

app = group("user", "Users: members of a colony that submit and read. Adding and removing them is for the colony's owner.")

Name = Annotated[str, typer.Argument(metavar="USER", help="The user's name.")]


@app.command("add")
def add(
    ctx: typer.Context,
    name: Name,
    user_key: Annotated[
        Path | None, typer.Option(help="The user's key file; made if it does not exist. Default: USER.key here.")
    ] = None,
    proof: Annotated[
        str | None, typer.Option(help="The user's join proof, if the key is elsewhere (see: colonies user proof).")
    ] = None,
) -> None:
    """Add a user. Repeating it with the same name and key changes nothing."""
    asyncio.run(_add(options_of(ctx), name, user_key, proof))


async def _add(options: Options, name: str, user_key: Path | None, proof: str | None) -> None:
    async with connected(options, Role.COLONY_OWNER) as here:
        joining = proof_given_or_made(
            text=proof,
            key_file=user_key,
            fallback=f"{name}.key",
            proof=Proof(audience=here.cluster, colony=here.colony, role="user", name=name),
        )
        request = auth.AddUserRequest(colony_name=here.colony, name=name, user=joining)
        response = await here.call(here.auth.AddUser, request)
    _show(options, response.user)


@app.command("proof")
def make_proof(
    ctx: typer.Context,
    name: Name,
    role: Annotated[
        str, typer.Option(help='"user", or "colony_owner": then USER is the colony\'s name.', metavar="ROLE")
    ] = "user",
) -> None:
    """Print a join proof: that the holder of a key agrees to be this user of this colony.

    Give it to the colony's owner, who runs `colonies user add NAME --proof PROOF` within 24 hours. The key stays here.
    """
    options = options_of(ctx)

    async def call() -> str:
        async with connected(options) as here:
            if role == "colony_owner":
                agreed = Proof(audience=here.cluster, colony=name, role=role, name=name)
            elif role == "user":
                agreed = Proof(audience=here.cluster, colony=here.colony, role=role, name=name)
            else:
                msg = f'{role!r} is neither "user" nor "colony_owner"'
                raise typer.BadParameter(msg, param_hint="--role")
            return to_text(agreed.signed_by(here.key))

    text = asyncio.run(call())
    if options.as_json:
        print_json({"proof": text})
    else:
        say(text)


@app.command("remove")
def remove(ctx: typer.Context, name: Name) -> None:
    """Remove a user."""
    options = options_of(ctx)

    async def call() -> None:
        async with connected(options, Role.COLONY_OWNER) as here:
            await here.call(
                here.auth.RemoveUser,
                auth.RemoveUserRequest(colony_name=here.colony, name=name),
                gone=auth.RemoveUserResponse(),
            )

    asyncio.run(call())
    if options.as_json:
        print_json({"removed": name})
    else:
        say(f"removed user {name}")


@app.command("list")
def list_users(ctx: typer.Context, limit: Limit = DEFAULT_LIMIT) -> None:
    """List the colony's users."""
    options = options_of(ctx)

    async def call() -> list[auth.User]:
        async with connected(options) as here:
            request = auth.ListUsersRequest(colony_name=here.colony)
            return await collected(here, here.auth.ListUsers, request, "users", limit=limit)

    users = asyncio.run(call())
    if options.as_json:
        print_json([plain(user) for user in users])
        return
    rows = [(user.name, user.identity, local_if_set(user, "created_time")) for user in users]
    print_table(("User", "Identity", "Added"), rows, empty="no users")


@app.command("get")
def get(ctx: typer.Context, name: Name) -> None:
    """Show one user."""
    options = options_of(ctx)

    async def call() -> auth.User:
        async with connected(options) as here:
            request = auth.GetUserRequest(colony_name=here.colony, name=name)
            found: auth.User = (await here.call(here.auth.GetUser, request)).user
            return found

    _show(options, asyncio.run(call()))


def _show(options: Options, user: auth.User) -> None:
    if options.as_json:
        print_json(plain(user))
        return
    print_fields([("User", user.name), ("Identity", user.identity), ("Added", local_if_set(user, "created_time"))])
