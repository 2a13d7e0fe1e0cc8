"""`python -m services.scheduler`: the composition root."""

from colonies.scheduler.v1.scheduler_service_pb2_grpc import add_SchedulerServiceServicer_to_server
from servicekit.directory import Directory
from servicekit.process import Process, main
from services.scheduler.domain.aftermath import Aftermath
from services.scheduler.domain.dispatching import Dispatching
from services.scheduler.domain.finishing import Finishing
from services.scheduler.domain.following import Following
from services.scheduler.domain.purging import Purging
from services.scheduler.domain.records import ExecutorProfile
from services.scheduler.domain.reporting import Reporting
from services.scheduler.domain.submitting import Submitting
from services.scheduler.domain.upkeep import Upkeep
from services.scheduler.queue.queue import Queue
from services.scheduler.queue.wakeups import Wakeups
from services.scheduler.registry import HeardBuffer, RemoteExecutors
from services.scheduler.rpc.servicer import Servicer
from services.scheduler.settings import Settings
from services.scheduler.store.reads import Reads
from services.scheduler.store.transitions import Transitions

SERVICE = "colonies.scheduler.v1.SchedulerService"


async def compose(process: Process, settings: Settings) -> None:
    """Builds the service from its parts, and serves until told to end."""
    database = await process.database("scheduler")
    tables, reads = Transitions(database), Reads(database)
    queue = Queue(process.redis, process.clock, lease_ms=settings.lease_ms)
    wakeups = Wakeups(process.redis)
    aftermath = Aftermath(queue)
    registry = process.channel(settings.registry_address, "registry_address")
    executors: Directory[ExecutorProfile] = Directory(RemoteExecutors(registry), process.clock)
    heard = HeardBuffer(registry, process.clock)
    members = process.remote_members()
    purging = Purging(tables, queue)
    members.on_colony_removed(purging.note)
    dispatching = Dispatching(
        tables=tables,
        queue=queue,
        aftermath=aftermath,
        wakeups=wakeups,
        executors=executors,
        heard=heard,
        drain=process.drain,
        clock=process.clock,
    )
    servicer = Servicer(
        submitting=Submitting(tables, queue, aftermath, process.clock),
        dispatching=dispatching,
        finishing=Finishing(tables, queue, aftermath, heard, process.clock),
        reporting=Reporting(reads, aftermath, heard),
        following=Following(reads, wakeups),
        reads=reads,
        clock=process.clock,
    )
    process.add(add_SchedulerServiceServicer_to_server, servicer, SERVICE)
    process.background("executors", executors.run)
    process.background("wakeups", wakeups.run)
    process.background("heard", heard.run)
    upkeep = Upkeep(tables, queue, aftermath, process.clock)
    process.background("upkeep", upkeep.run)
    process.background("patrol", upkeep.patrol)
    process.background("purging", purging.run)
    await process.serve(members)


if __name__ == "__main__":
    main("scheduler", Settings, compose)
