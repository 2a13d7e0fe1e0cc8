"""Composition root of the registry: `python -m services.registry`."""

from colonies.registry.v1 import registry_service_pb2 as pb
from colonies.registry.v1.registry_service_pb2_grpc import add_RegistryServiceServicer_to_server
from servicekit.changes import ChangeFeed
from servicekit.process import Process, main
from services.registry.domain.catalogue import Catalogue, Sites
from services.registry.domain.enrolment import Enrolment
from services.registry.domain.purge import Purge
from services.registry.rpc.authority import RemoteAuthority
from services.registry.rpc.servicer import RegistryServicer
from services.registry.settings import Settings
from services.registry.store.store import CHANNEL, PostgresStore

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["RegistryService"].full_name


async def compose(process: Process, settings: Settings) -> None:
    """Puts the registry together and serves it until the process is told to end."""
    store = PostgresStore(await process.database("registry"))
    authority = RemoteAuthority(process.channel(settings.auth_address, "auth_address"))
    feed = ChangeFeed(settings.postgres_url.get_secret_value(), CHANNEL)
    purge = Purge(store)
    members = process.remote_members()
    members.on_colony_removed(purge.add)
    process.background("changes", feed.run)
    process.background("purge", purge.run)
    servicer = RegistryServicer(Enrolment(store, authority, process.clock), Catalogue(store), Sites(store), changes=feed.follow)
    process.add(add_RegistryServiceServicer_to_server, servicer, SERVICE_NAME)
    await process.serve(members)


if __name__ == "__main__":
    main("registry", Settings, compose)
