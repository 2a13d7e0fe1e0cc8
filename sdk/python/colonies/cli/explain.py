"""`colonies explain`: why a process waits, or would."""

import asyncio
from typing import Annotated

import typer

from colonies.cli.call import Call, takes_call
from colonies.cli.connection import connected
from colonies.cli.failure import usage
from colonies.cli.moments import local_if_set
from colonies.cli.options import options_of, single
from colonies.cli.output import Cell, print_fields, print_json, print_table
from colonies.cli.plain import plain
from colonies.scheduler.v1.explain_pb2 import ConditionKind, ConditionReport, Explanation, WaitReason

app = single("explain")

Target = Annotated[str, typer.Argument(metavar="PROCESS|FUNCTION", help="The process's id; with --spec, the function.")]


@app.command("explain")
@takes_call(Target)
def explain(
    ctx: typer.Context,
    call: Call,
    spec: Annotated[bool, typer.Option("--spec", help="Explain a call that has not been submitted.")] = False,
) -> None:
    """Say why a process waits, and which executors fail which of its conditions.

    With --spec: what this would say of a call if it were submitted now, with the arguments and options of `colonies submit`.
    """
    options = options_of(ctx)
    if not spec and call != Call(call.func):
        msg = "arguments and options of a call need --spec: the process has its own"
        raise usage(msg)
    wanted = call.to_spec() if spec else None

    async def ask() -> Explanation:
        async with connected(options) as here:
            # Names the missing colony before anything is sent.
            _ = here.colony
            return await (here.client.explain(call.func) if wanted is None else here.client.explain_spec(wanted))

    explanation = asyncio.run(ask())
    if options.as_json:
        print_json(plain(explanation))
        return
    print_fields(_fields(explanation))
    rows = [_row(report) for report in explanation.conditions]
    print_table(("Condition", "Wanted", "Failing", "Which"), rows, title="Conditions", empty="none")


def _word(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _fields(found: Explanation) -> list[tuple[str, Cell]]:
    known = found.reason in WaitReason.values()
    reason = WaitReason.Name(found.reason).removeprefix("WAIT_REASON_") if known else f"reason {found.reason}"
    more = found.pending_parent_count - len(found.pending_parents)
    parents = ", ".join(found.pending_parents) + (f" and {more} more" if more > 0 else "")
    return [
        ("Reason", _word(reason)),
        ("Summary", found.summary),
        ("Waits for", parents),
        ("Backs off until", local_if_set(found, "backoff_until")),
        ("Paused", "yes" if found.paused else ""),
        ("Executors", str(found.executors)),
        ("Meet all conditions", f"{found.matching}, of which {found.offline} offline, {found.full} full, {found.free} free"),
        ("Place in queue", f"{found.place} of {found.lane_length}" if found.place else ""),
    ]


def _row(report: ConditionReport) -> tuple[Cell, ...]:
    known = report.kind in ConditionKind.values()
    kind = ConditionKind.Name(report.kind).removeprefix("CONDITION_KIND_") if known else f"condition {report.kind}"
    return _word(kind), report.wanted, str(report.failing), ", ".join(report.failing_names)
