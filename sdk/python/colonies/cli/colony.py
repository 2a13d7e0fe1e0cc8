"""`colonies colony`: tenants. For the server's owner, but for `get`."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from colonies.auth.v1 import auth_service_pb2 as auth
from colonies.cli.connection import Role, connected, owner_key_path
from colonies.cli.moments import local_if_set
from colonies.cli.options import Options, group, options_of
from colonies.cli.output import print_fields, print_json, print_table, say
from colonies.cli.paging import DEFAULT_LIMIT, Limit, collected
from colonies.cli.plain import plain
from colonies.cli.proofs import Proof, proof_given_or_made

app = group("colony", "Colonies: the tenants of a server. Adding, removing and listing them is for the server's owner.")

Name = Annotated[str, typer.Argument(metavar="COLONY", help="The colony's name.")]


@app.command("add")
def add(
    ctx: typer.Context,
    name: Name,
    owner_key: Annotated[
        Path | None, typer.Option(help="The owner's key file; made if it does not exist. Default: the profile's.")
    ] = None,
    owner_proof: Annotated[
        str | None, typer.Option(help="The owner's join proof, if the key is elsewhere (see: colonies user proof).")
    ] = None,
) -> None:
    """Add a colony, owned by a key. Repeating it with the same owner changes nothing."""
    asyncio.run(_add(options_of(ctx), name, owner_key, owner_proof))


async def _add(options: Options, name: str, owner_key: Path | None, owner_proof: str | None) -> None:
    async with connected(options, Role.SERVER_OWNER) as here:
        proof = proof_given_or_made(
            text=owner_proof,
            key_file=owner_key or owner_key_path(here.profile),
            fallback=f"{name}-owner.key",
            proof=Proof(audience=here.cluster, colony=name, role="colony_owner", name=name),
        )
        response = await here.call(here.auth.AddColony, auth.AddColonyRequest(name=name, owner=proof))
    _show(options, response.colony)


@app.command("remove")
def remove(ctx: typer.Context, name: Name) -> None:
    """Remove a colony and everything in it. Its name is never given out again."""
    options = options_of(ctx)

    async def call() -> None:
        async with connected(options, Role.SERVER_OWNER) as here:
            await here.call(here.auth.RemoveColony, auth.RemoveColonyRequest(name=name), gone=auth.RemoveColonyResponse())

    asyncio.run(call())
    if options.as_json:
        print_json({"removed": name})
    else:
        say(f"removed colony {name}")


@app.command("list")
def list_colonies(ctx: typer.Context, limit: Limit = DEFAULT_LIMIT) -> None:
    """List the server's colonies."""
    options = options_of(ctx)

    async def call() -> list[auth.Colony]:
        async with connected(options, Role.SERVER_OWNER) as here:
            return await collected(here, here.auth.ListColonies, auth.ListColoniesRequest(), "colonies", limit=limit)

    colonies = asyncio.run(call())
    if options.as_json:
        print_json([plain(colony) for colony in colonies])
        return
    rows = [(colony.name, colony.owner, local_if_set(colony, "created_time")) for colony in colonies]
    print_table(("Colony", "Owner", "Added"), rows, empty="no colonies")


@app.command("get")
def get(
    ctx: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="COLONY", help="Default: the profile's.")] = None,
) -> None:
    """Show one colony."""
    options = options_of(ctx)

    async def call() -> auth.Colony:
        async with connected(options) as here:
            request = auth.GetColonyRequest(colony_name=name or here.colony)
            found: auth.Colony = (await here.call(here.auth.GetColony, request)).colony
            return found

    _show(options, asyncio.run(call()))


def _show(options: Options, colony: auth.Colony) -> None:
    if options.as_json:
        print_json(plain(colony))
        return
    print_fields([("Colony", colony.name), ("Owner", colony.owner), ("Added", local_if_set(colony, "created_time"))])
