"""`colonies audit`: signed records of what was done: exported from a server, checked and read without one."""

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from colonies.audit.findings import DEFAULT_MAX_FINDINGS, Finding, Report, TooMany
from colonies.audit.reading import first_look, read_header
from colonies.audit.records import MalformedError
from colonies.audit.scope import Scope
from colonies.audit.verify import verify
from colonies.cli.audit_request import Wanted
from colonies.cli.audit_story import stories
from colonies.cli.audit_trust import Named, trusted
from colonies.cli.connection import connected
from colonies.cli.failure import CliError, ExitCode, usage
from colonies.cli.options import group, options_of
from colonies.cli.output import note, print_fields, print_json, say

app = group("audit", "Audit: who asked for what, and who reported which result, with the signatures that prove it.")

_STDIO = "-"
File = Annotated[str, typer.Argument(metavar="FILE", help="An audit file; - for standard input.")]
Sealer = Annotated[
    list[str] | None,
    typer.Option(
        "--sealer",
        metavar="IDENTITY",
        help="The scheduler's identity, which seals files. May be repeated. Default: the local stack's.",
        show_default=False,
    ),
]
Owner = Annotated[
    list[str] | None,
    typer.Option(
        "--owner",
        metavar="IDENTITY",
        help="The colony owner's identity, the first one or a later one. May be repeated. Default: the profile's.",
        show_default=False,
    ),
]
ServerOwner = Annotated[
    list[str] | None,
    typer.Option(
        "--server-owner",
        metavar="IDENTITY",
        help="The server owner's identity, who adds and removes colonies. May be repeated. Default: the local stack's and the "
        "profile's.",
        show_default=False,
    ),
]
Cron = Annotated[
    list[str] | None,
    typer.Option(
        "--cron",
        metavar="IDENTITY",
        help="The cron service's identity, which may submit and cancel on behalf of members. May be repeated. "
        "Default: the local stack's.",
        show_default=False,
    ),
]


@app.command("export")
def export(
    ctx: typer.Context,
    output: Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="Where to write it; - for standard output.")],
    workflow: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Only this workflow. May be repeated.", show_default=False)
    ] = None,
    process: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Only this process. May be repeated.", show_default=False)
    ] = None,
    since: Annotated[str, typer.Option(metavar="TIME", help="Only what was submitted then or later: 2026-01-31T12:00.")] = "",
    before: Annotated[str, typer.Option(metavar="TIME", help="Only what was submitted before.")] = "",
) -> None:
    """Write an audit file. It appears whole, with its seal, or not at all."""
    options = options_of(ctx)
    filters: dict[str, Any] = {
        "process_ids": process or [],
        "workflow_ids": workflow or [],
        "since": _moment(since, "--since"),
        "before": _moment(before, "--before"),
    }

    async def download(file: BinaryIO) -> Wanted:
        async with connected(options) as here:
            wanted = Wanted(here.cluster, here.colony, here.key.identity, **filters)
            async for lines in here.client.export_audit(**filters):
                file.write(lines)
            return wanted

    target = None if output == _STDIO else Path(output)
    with _scratch(target) as file:
        wanted = asyncio.run(download(file))
        file.flush()
        report = _looked_at(file)
        if not report.intact():
            details = [str(finding) for finding in report.findings]
            msg = "what the server sent is no intact audit file; nothing was written"
            raise CliError(msg, ExitCode.FAILED, details=details)
        if differences := wanted.differences(file):
            msg = "what the server sent is not what it was asked for; nothing was written"
            raise CliError(msg, ExitCode.FAILED, details=differences)
        if target is None:
            file.seek(0)
            shutil.copyfileobj(file, sys.stdout.buffer)
            return
        os.fsync(file.fileno())
        Path(file.name).replace(target)
    lines = report.counts["lines"]
    if options.as_json:
        print_json({"file": output, "lines": lines, "sealed_by": report.sealed_by})
    else:
        say(f"{output}: {lines} lines, sealed by {report.sealed_by}\nCheck it with: colonies audit verify {output}")


@app.command("verify")
def check(
    ctx: typer.Context,
    file: File,
    sealer: Sealer = None,
    owner: Owner = None,
    server_owner: ServerOwner = None,
    cron: Cron = None,
    after: Annotated[
        str | None, typer.Option(metavar="EARLIER", help="An earlier audit file, which this one must bear out.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="What nothing proves counts as a defect.")] = False,
    data_dir: Annotated[
        Path | None, typer.Option(envvar="COLONIES_DATA_DIR", help="Of the local stack to trust.", show_default=False)
    ] = None,
    findings: Annotated[int, typer.Option(min=1, max=10_000, help="Stop after so many findings.")] = DEFAULT_MAX_FINDINGS,
) -> None:
    """Check an audit file, without any server. Exit code 0 if it is intact, 1 if not."""
    options = options_of(ctx)
    with _opened(file) as read:
        trust = trusted(options, Named(sealer, owner, server_owner, cron), data_dir, read)
        with ExitStack() as stack:
            earlier = stack.enter_context(_opened(after)) if after is not None else None
            report = verify(read, trust, after=earlier, max_findings=findings)
    intact = report.intact(strict=strict)
    if options.as_json:
        print_json(_document(report, intact=intact))
    else:
        _tell(report, intact=intact)
    if not intact:
        raise typer.Exit(ExitCode.FAILED)


@app.command("show")
def show(
    ctx: typer.Context,
    file: File,
    process: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Only this process. May be repeated.", show_default=False)
    ] = None,
) -> None:
    """Print what an audit file says: who asked for what, and who reported which result."""
    options = options_of(ctx)
    with _opened(file) as read:
        report = _looked_at(read)
        if not report.intact():
            raise CliError(f"{file} is damaged", ExitCode.FAILED, details=[str(finding) for finding in report.findings])
        read.seek(0)
        told = stories(read, frozenset(process or ()))
        if options.as_json:
            print_json([story.document for story in told])
        else:
            for story in told:
                say("\n".join(story.lines))
    note("This is what the file says; colonies audit verify tells whether it is proven.")


def _moment(text: str, name: str) -> datetime | None:
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
        # Without a zone it is local.
        return moment.astimezone()
    except (ValueError, OverflowError) as error:
        msg = f"{name}: {text!r} is no time such as 2026-01-31T12:00 or 2026-01-31T12:00+01:00"
        raise usage(msg) from error


@contextmanager
def _scratch(target: Path | None) -> Iterator[Any]:
    """A file that nobody else may read, beside its target, gone when the block ends."""
    if target is None:
        with tempfile.TemporaryFile() as file:
            yield file
        return
    with tempfile.NamedTemporaryFile(dir=target.absolute().parent, prefix=f".{target.name}.", delete=False) as file:
        try:
            yield file
        finally:
            with suppress(FileNotFoundError):  # it has become the target
                Path(file.name).unlink()


@contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    """A file that can be read twice; what cannot, such as a pipe, is copied first."""
    with open(sys.stdin.fileno() if name == _STDIO else name, "rb", closefd=name != _STDIO) as file:
        if file.seekable():
            yield file
            return
        with tempfile.TemporaryFile() as copy:
            shutil.copyfileobj(file, copy)
            copy.seek(0)
            yield copy


def _looked_at(file: BinaryIO) -> Report:
    """Whether every line is as it was written, and the seal is somebody's."""
    report = Report(max_findings=1)
    file.seek(0)
    with suppress(TooMany):
        with suppress(MalformedError):  # what is wrong with the header shows in its line
            header = read_header(file).record
            report.cluster, report.colony, report.owner = header["cluster"], header["colony"], header["owner"]
        file.seek(0)
        first_look(file, report)
    return report


def _document(report: Report, *, intact: bool) -> dict[str, Any]:
    def listed(findings: Sequence[Finding]) -> list[dict[str, Any]]:
        return [{"line": one.line, "kind": one.kind.value, "where": one.where, "message": one.message} for one in findings]

    return {
        "intact": intact,
        "cluster": report.cluster,
        "colony": report.colony,
        "owner": report.owner,
        "scope": dict(report.scope),
        "sealed_by": report.sealed_by,
        "sealed_at_ms": report.sealed_at_ms,
        "counts": dict(report.counts),
        "findings": listed(report.findings),
        "stopped": report.stopped,
        "not_proven": report.unproven,
        "warnings": listed(report.warnings),
    }


def _tell(report: Report, *, intact: bool) -> None:
    for finding in report.findings:
        say(f"{finding.kind}  {finding}")
    if report.stopped:
        say("There may be more: the check stopped here.")
    for warning in report.warnings:
        note(f"{warning.kind}  {warning}")
    if report.unproven > len(report.warnings):
        note(f"and {report.unproven - len(report.warnings)} more that are not proven")
    fields = [("Cluster", report.cluster), ("Colony", report.colony), ("Owner", report.owner), ("Sealed by", report.sealed_by)]
    fields.insert(3, ("Scope", str(Scope(report.scope)) if report.scope else ""))
    fields += [(name.capitalize(), str(count)) for name, count in report.counts.items()]
    print_fields(fields)
    if not intact:
        say("NOT INTACT")
    elif report.unproven:
        say("intact, but not all of it is proven (--strict refuses it)")
    else:
        say("intact")
