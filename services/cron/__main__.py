"""The cron service's process: puts its parts together and serves."""

from colonies.cron.v1 import cron_service_pb2
from colonies.cron.v1.cron_service_pb2_grpc import add_CronServiceServicer_to_server
from servicekit.process import Process, main
from services.cron.domain.crons import Crons
from services.cron.domain.fires import Fires
from services.cron.domain.purge import Purge
from services.cron.metrics import observe_fire
from services.cron.rpc.servicer import CronServicer
from services.cron.scheduler import SchedulerSubmitter
from services.cron.settings import Settings
from services.cron.store.store import PostgresCronStore

SERVICE_NAME = cron_service_pb2.DESCRIPTOR.services_by_name["CronService"].full_name


async def compose(process: Process, settings: Settings) -> None:
    """Puts the service together and serves until told to end."""
    store = PostgresCronStore(await process.database("cron"))
    channel = process.channel(settings.scheduler_address, "scheduler_address")
    submitter = SchedulerSubmitter(channel, timeout_s=settings.submit_seconds)
    fires = Fires(store, submitter, process.clock, workers=settings.concurrent_fires, on_fire=observe_fire)
    crons = Crons(store, submitter, process.clock, on_added=fires.wake)
    purge = Purge(store)

    process.add(add_CronServiceServicer_to_server, CronServicer(crons), SERVICE_NAME)
    process.background("fires", fires.run)
    process.background("purge", purge.run)
    members = process.remote_members()
    members.on_colony_removed(purge.colony_removed)
    await process.serve(members)


if __name__ == "__main__":
    main("cron", Settings, compose)
