"""`colonies location`: named sites that executors belong to and specs may ask for."""

import asyncio
from typing import Annotated

import typer

from colonies.cli.connection import Role, connected
from colonies.cli.options import group, options_of
from colonies.cli.output import print_fields, print_json, print_table, say
from colonies.cli.paging import DEFAULT_LIMIT, Limit, collected
from colonies.cli.plain import plain
from colonies.registry.v1 import registry_service_pb2 as registry

app = group("location", "Locations: named sites of executors. Adding and removing them is for the colony's owner.")

Name = Annotated[str, typer.Argument(metavar="LOCATION", help="The location's name.")]


@app.command("add")
def add(
    ctx: typer.Context,
    name: Name,
    longitude: Annotated[float, typer.Option(help="Degrees east, -180 to 180.")] = 0.0,
    latitude: Annotated[float, typer.Option(help="Degrees north, -90 to 90.")] = 0.0,
    description: Annotated[str, typer.Option(help="What is there.")] = "",
) -> None:
    """Add a location, or change it."""
    options = options_of(ctx)
    location = registry.Location(name=name, description=description, longitude=longitude, latitude=latitude)

    async def call() -> None:
        async with connected(options, Role.COLONY_OWNER) as here:
            request = registry.PutLocationRequest(colony_name=here.colony, location=location)
            await here.call(here.registry.PutLocation, request)

    asyncio.run(call())
    if options.as_json:
        print_json(plain(location))
    else:
        say(f"location {name} is at longitude {longitude:g}, latitude {latitude:g}")


@app.command("list")
def list_locations(ctx: typer.Context, limit: Limit = DEFAULT_LIMIT) -> None:
    """List the colony's locations."""
    options = options_of(ctx)

    async def call() -> list[registry.Location]:
        async with connected(options) as here:
            request = registry.ListLocationsRequest(colony_name=here.colony)
            return await collected(here, here.registry.ListLocations, request, "locations", limit=limit)

    locations = asyncio.run(call())
    if options.as_json:
        print_json([plain(location) for location in locations])
        return
    rows = [(each.name, f"{each.longitude:g}", f"{each.latitude:g}", each.description) for each in locations]
    print_table(("Location", "Longitude", "Latitude", "Description"), rows, empty="no locations")


@app.command("get")
def get(ctx: typer.Context, name: Name) -> None:
    """Show one location."""
    options = options_of(ctx)

    async def call() -> registry.Location:
        async with connected(options) as here:
            request = registry.GetLocationRequest(colony_name=here.colony, name=name)
            found: registry.Location = (await here.call(here.registry.GetLocation, request)).location
            return found

    location = asyncio.run(call())
    if options.as_json:
        print_json(plain(location))
        return
    print_fields(
        [
            ("Location", location.name),
            ("Longitude", f"{location.longitude:g}"),
            ("Latitude", f"{location.latitude:g}"),
            ("Description", location.description),
        ]
    )


@app.command("remove")
def remove(ctx: typer.Context, name: Name) -> None:
    """Remove a location that no executor is at."""
    options = options_of(ctx)

    async def call() -> None:
        async with connected(options, Role.COLONY_OWNER) as here:
            request = registry.RemoveLocationRequest(colony_name=here.colony, name=name)
            await here.call(here.registry.RemoveLocation, request, gone=registry.RemoveLocationResponse())

    asyncio.run(call())
    if options.as_json:
        print_json({"removed": name})
    else:
        say(f"removed location {name}")
