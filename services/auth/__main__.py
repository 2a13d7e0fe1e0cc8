"""Composition root of auth: `python -m services.auth`."""

import colonies
from colonies.auth.v1 import auth_service_pb2 as pb
from colonies.auth.v1.auth_service_pb2_grpc import add_AuthServiceServicer_to_server
from servicekit.changes import ChangeFeed
from servicekit.members import members_of
from servicekit.process import Process, main
from services.auth.domain.keys import Keys
from services.auth.domain.memberships import Memberships
from services.auth.domain.principals import Principals, configured
from services.auth.rpc.servicer import AuthServicer
from services.auth.settings import Settings
from services.auth.store.changes import CHANNEL, LocalMembers
from services.auth.store.store import PostgresStore

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["AuthService"].full_name


async def compose(process: Process, settings: Settings) -> None:
    """Puts auth together and serves it until the process is told to end."""
    store = PostgresStore(await process.database("auth"))
    feed = ChangeFeed(settings.postgres_url.get_secret_value(), CHANNEL)
    memberships = Memberships(store, process.clock)
    principals = Principals(store, configured(settings.server_owner, settings.service_identities))
    keys = Keys(store, memberships, principals, process.clock)
    local = LocalMembers(keys, store, feed)
    # Auth checks its own callers against its own records: the one service that asks nobody.
    members = members_of(local, process.clock)
    process.background("changes", feed.run)
    process.background("members", members.run)
    servicer = AuthServicer(
        memberships,
        keys,
        changes=local.changes,
        cluster=settings.cluster,
        version=colonies.__version__,
        clock=process.clock,
    )
    process.add(add_AuthServiceServicer_to_server, servicer, SERVICE_NAME)
    await process.serve(members)


if __name__ == "__main__":
    main("auth", Settings, compose)
