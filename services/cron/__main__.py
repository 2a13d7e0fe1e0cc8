"""The cron service's process: puts its parts together and serves."""

from datetime import timedelta

from colonies.cron.v1 import cron_service_pb2, generator_service_pb2
from colonies.cron.v1.cron_service_pb2_grpc import add_CronServiceServicer_to_server
from colonies.cron.v1.generator_service_pb2_grpc import add_GeneratorServiceServicer_to_server
from servicekit.envelope import MIB
from servicekit.postgres import Database
from servicekit.process import Process, main
from services.cron.domain.crons import Crons
from services.cron.domain.dispatch import Dispatch
from services.cron.domain.due import DueLoop
from services.cron.domain.fires import Fires
from services.cron.domain.generator import Room
from services.cron.domain.generator_upkeep import GeneratorUpkeep
from services.cron.domain.generators import Generators
from services.cron.domain.ports import WorkflowSubmitter
from services.cron.domain.purge import Purge
from services.cron.domain.telling import Telling
from services.cron.domain.upkeep import Upkeep
from services.cron.metrics import observe_batches, observe_fire, observe_pack, observe_submitted, observe_waiting
from services.cron.queue.timers import RedisTimers
from services.cron.rpc.generators import GeneratorServicer
from services.cron.rpc.servicer import CronServicer
from services.cron.scheduler import SchedulerSubmitter
from services.cron.settings import Settings
from services.cron.store.crons import PostgresCronStore
from services.cron.store.dispatches import PostgresDispatchStore
from services.cron.store.fires import PostgresFireStore
from services.cron.store.generator_sweeps import PostgresGeneratorSweeps
from services.cron.store.generators import PostgresGeneratorStore
from services.cron.store.packs import PostgresPackStore

SERVICE_NAME = cron_service_pb2.DESCRIPTOR.services_by_name["CronService"].full_name
GENERATORS_NAME = generator_service_pb2.DESCRIPTOR.services_by_name["GeneratorService"].full_name
# Generators in one look of the loop: each may have 16 MiB in hand.
DISPATCHES = 4


async def compose(process: Process, settings: Settings) -> None:
    """Puts the service together and serves until told to end."""
    database = await process.database("cron")
    clock, lease_s = process.clock, settings.lease_s
    channel = process.channel(settings.scheduler_address, "scheduler_address")
    submitter = SchedulerSubmitter(channel, timeout_s=settings.submit_seconds)

    store, fire_store = PostgresCronStore(database), PostgresFireStore(database)
    fires = Fires(fire_store, submitter, clock, lease_s=lease_s, on_fire=observe_fire)
    timers = RedisTimers(process.redis, "crons")
    firing = DueLoop("fires", timers, fire_store, fires.work, clock, lease_s=lease_s, workers=settings.concurrent_fires)
    crons = Crons(store, submitter, clock, lease_s=lease_s, on_change=firing.tell)
    upkeep = Upkeep(store, submitter, clock, retention=timedelta(hours=settings.fire_retention_hours))
    generator_upkeep = compose_generators(process, settings, database, submitter)
    purge = Purge(store, generator_upkeep)

    process.add(add_CronServiceServicer_to_server, CronServicer(crons), SERVICE_NAME)
    process.background("fires", firing.run)
    process.background("upkeep", upkeep.run)
    process.background("purge", purge.run)
    members = process.remote_members()
    members.on_colony_removed(purge.colony_removed)
    await process.serve(members)


def compose_generators(
    process: Process, settings: Settings, database: Database, submitter: WorkflowSubmitter
) -> GeneratorUpkeep:
    """Puts generators beside the crons. Returns what sweeps up after them."""
    clock, lease_s = process.clock, settings.lease_s
    dispatch_store = PostgresDispatchStore(database)
    dispatch = Dispatch(
        dispatch_store, submitter, clock, lease_s=lease_s, on_cut=observe_batches, on_submitted=observe_submitted
    )
    timers = RedisTimers(process.redis, "generators")
    workers = settings.concurrent_dispatches
    dispatching = DueLoop(
        "dispatches", timers, dispatch_store, dispatch.work, clock, lease_s=lease_s, workers=workers, batch=DISPATCHES
    )
    keep_batches = timedelta(hours=settings.fire_retention_hours)
    upkeep = GeneratorUpkeep(PostgresGeneratorSweeps(database), clock, keep_batches=keep_batches, on_waiting=observe_waiting)
    generators = Generators(
        PostgresGeneratorStore(database),
        PostgresPackStore(database),
        submitter,
        clock,
        room=Room(settings.generator_max_waiting, settings.generator_max_waiting_mib * MIB, settings.generator_max_keys),
        on_made=observe_batches,
        on_look=Telling(dispatching, clock),
        on_dropped=upkeep.wake,
        on_packed=observe_pack,
    )
    process.add(add_GeneratorServiceServicer_to_server, GeneratorServicer(generators), GENERATORS_NAME)
    process.background("dispatches", dispatching.run)
    process.background("generator upkeep", upkeep.run)
    return upkeep


if __name__ == "__main__":
    main("cron", Settings, compose)
