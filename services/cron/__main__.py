"""The cron service's process: puts its parts together and serves."""

from datetime import timedelta

from colonies.cron.v1 import cron_service_pb2
from colonies.cron.v1.cron_service_pb2_grpc import add_CronServiceServicer_to_server
from servicekit.process import Process, main
from services.cron.domain.crons import Crons
from services.cron.domain.due import DueLoop
from services.cron.domain.fires import Fires
from services.cron.domain.purge import Purge
from services.cron.domain.upkeep import Upkeep
from services.cron.metrics import observe_fire
from services.cron.queue.timers import RedisTimers
from services.cron.rpc.servicer import CronServicer
from services.cron.scheduler import SchedulerSubmitter
from services.cron.settings import Settings
from services.cron.store.crons import PostgresCronStore
from services.cron.store.fires import PostgresFireStore

SERVICE_NAME = cron_service_pb2.DESCRIPTOR.services_by_name["CronService"].full_name


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
    purge = Purge(store)

    process.add(add_CronServiceServicer_to_server, CronServicer(crons), SERVICE_NAME)
    process.background("fires", firing.run)
    process.background("upkeep", upkeep.run)
    process.background("purge", purge.run)
    members = process.remote_members()
    members.on_colony_removed(purge.colony_removed)
    await process.serve(members)


if __name__ == "__main__":
    main("cron", Settings, compose)
