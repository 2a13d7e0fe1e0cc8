"""`python -m services.scheduler`: the composition root."""

from colonies.scheduler.v1.scheduler_service_pb2_grpc import add_SchedulerServiceServicer_to_server
from servicekit.directory import Directory
from servicekit.process import Process, main
from services.scheduler import metrics
from services.scheduler.domain.aftermath import Aftermath
from services.scheduler.domain.auditing import Auditing
from services.scheduler.domain.channelling import Channelling
from services.scheduler.domain.controls import Controlling
from services.scheduler.domain.dispatching import Dispatching
from services.scheduler.domain.explainer import Explainer
from services.scheduler.domain.finishing import Finishing
from services.scheduler.domain.following import Following
from services.scheduler.domain.kin import Kin
from services.scheduler.domain.limits import Limits
from services.scheduler.domain.patrol import Patrol, Recovery
from services.scheduler.domain.purging import Purging
from services.scheduler.domain.records import ExecutorProfile
from services.scheduler.domain.reporting import Reporting
from services.scheduler.domain.retention import Retention
from services.scheduler.domain.statistics import Counting
from services.scheduler.domain.submitting import Submitting
from services.scheduler.domain.upkeep import Upkeep
from services.scheduler.domain.watermark import Steps
from services.scheduler.memberships import RemoteMemberships
from services.scheduler.queue.queue import Queue
from services.scheduler.queue.wakeups import Wakeups
from services.scheduler.registry import HeardBuffer, RemoteExecutors, Roster
from services.scheduler.rpc.receipts import Receipts
from services.scheduler.rpc.servicer import Servicer
from services.scheduler.settings import Settings
from services.scheduler.store.audit import AuditLedgers
from services.scheduler.store.channels import ChannelTables
from services.scheduler.store.controls import ControlStore
from services.scheduler.store.explain import ExplainReads
from services.scheduler.store.reads import Reads
from services.scheduler.store.retention import RetentionStore
from services.scheduler.store.statistics import StatisticsStore
from services.scheduler.store.transitions import Transitions

SERVICE = "colonies.scheduler.v1.SchedulerService"


async def compose(process: Process, settings: Settings) -> None:
    """Builds the service from its parts, and serves until told to end."""
    database = await process.database("scheduler")
    tables, reads = Transitions(database), Reads(database)
    wakeups = Wakeups(process.redis)
    process.drain.at_start(wakeups.wake_everyone)
    queue = Queue(process.redis, process.clock, wakeups, lease_ms=settings.lease_ms)
    steps = Steps(process.clock)
    controls = ControlStore(database)
    limits = Limits(controls, process.clock)
    counting = Counting(StatisticsStore(database), process.clock)
    controlling = Controlling(controls, queue, process.clock, changed=limits.refresh)
    retention = Retention(RetentionStore(database), counting, process.clock)
    aftermath = Aftermath(tables, queue, steps, counting, limits)
    registry = process.channel(settings.registry_address, "registry_address")
    executors: Directory[ExecutorProfile] = Directory(RemoteExecutors(registry), process.clock)
    heard = HeardBuffer(registry, process.clock)
    members = process.remote_members()
    purging = Purging(tables, queue)
    members.on_colony_removed(purging.note)
    kin = Kin()
    dispatching = Dispatching(
        tables=tables,
        queue=queue,
        aftermath=aftermath,
        wakeups=wakeups,
        executors=executors,
        heard=heard,
        kin=kin,
        steps=steps,
        drain=process.drain,
        clock=process.clock,
    )
    auditing = Auditing(
        AuditLedgers(database),
        RemoteMemberships(process.channel(settings.auth_address, "auth_address"), settings.cluster),
        cluster=settings.cluster,
        holder=process.key_file,
        kept=settings.receipts,
        clock=process.clock,
    )
    submitting = Submitting(tables, aftermath, steps, limits, process.clock)
    finishing = Finishing(
        tables=tables,
        aftermath=aftermath,
        departures=retention,
        steps=steps,
        heard=heard,
        kin=kin,
        clock=process.clock,
    )
    servicer = Servicer(
        submitting=submitting,
        dispatching=dispatching,
        finishing=finishing,
        reporting=Reporting(reads, aftermath, heard),
        following=Following(reads, wakeups),
        channelling=Channelling(ChannelTables(database), aftermath, wakeups, heard, process.clock),
        explainer=Explainer(tables, ExplainReads(database), Roster(registry, heard, process.clock), queue, process.clock),
        controlling=controlling,
        counting=counting,
        auditing=auditing,
        reads=reads,
        receipts=Receipts(kept=settings.receipts),
        clock=process.clock,
    )
    process.add(add_SchedulerServiceServicer_to_server, servicer, SERVICE)
    upkeep = Upkeep(tables, queue, aftermath, steps, process.clock, tell_pauses=controlling.tell_pauses)
    recovery = Recovery(tables, queue, aftermath, steps)
    measured = metrics.Measured(submitting, dispatching, finishing, aftermath, upkeep, recovery, limits, counting)
    process.at_end(metrics.COLLECTOR.measure(measured))
    process.background("executors", executors.run)
    process.background("wakeups", wakeups.run)
    process.background("heard", heard.run)
    process.background("aftermath", aftermath.run)
    process.background("upkeep", upkeep.run)
    process.background("patrol", Patrol(tables, queue, upkeep).run)
    process.background("beats", recovery.run_beats)
    process.background("recovery", recovery.run)
    process.background("purging", purging.run)
    process.background("limits", limits.run)
    process.background("counting", counting.run)
    process.background("pauses", controlling.run)
    process.background("retention", retention.run)
    await process.serve(members)


if __name__ == "__main__":
    main("scheduler", Settings, compose)
