"""Reading an audit file line by line, and the first look at it: whether any line is not the one that was written.

That look costs one digest a line, keeps nothing, and finds every accident: whatever was changed, dropped, swapped, put in or
cut off, the first line that is not as it was does not follow from the line before it.
"""

import hashlib
import json
from collections.abc import Iterator
from typing import BinaryIO

from colonies.audit.chains import seal_text
from colonies.audit.findings import Kind, Report
from colonies.audit.lines import NO_DIGEST
from colonies.audit.records import Line, MalformedError, check_form, decoded, label
from colonies.keys import identity_of
from colonies.verifying import signer_of

# Digest and space before the JSON.
_PREFIX = 65
# More than the largest request as base64.
MAX_LINE_BYTES = 256 * 1024 * 1024


def _label_of(content: bytes) -> str:
    """What a line that may be damaged seems to be about."""
    try:
        record = json.loads(content)
    except (ValueError, RecursionError):
        return "an unreadable line"
    return label(record) if isinstance(record, dict) else "no record"


def _where(content: bytes, before: bytes) -> str:
    """What a damaged line is about: the line before it is known to be good, and tells where one is."""
    return f"{_label_of(content)}, after {_label_of(before)}" if before else f"{_label_of(content)}, first in the file"


def _form_problem(line: bytes) -> str:
    if len(line) > MAX_LINE_BYTES:
        return f"has more than {MAX_LINE_BYTES} bytes"
    if not line.endswith(b"\n"):
        return "is cut off: it has no line end"
    if line[_PREFIX - 1 : _PREFIX] != b" ":
        return "is no digest, space and record"
    return ""


def _resumed(stated: bytes, computed: bytes) -> bytes:
    """The digest to go on with after a damaged line: the one that it states, if it is one, fits what follows it."""
    try:
        return bytes.fromhex(stated.decode("ascii"))
    except ValueError:
        return computed


def first_look(file: BinaryIO, report: Report) -> bool:
    """Checks the digest of every line, and the seal's form. False: some line is not what was written.

    Raises:
        TooMany: enough was found.
    """
    previous, before_last = NO_DIGEST, b""
    number, content = 0, b""
    good = True
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        before, content = content, line[_PREFIX:-1]
        if problem := _form_problem(line):
            report.found(number, Kind.DAMAGED, _where(line[_PREFIX:].removesuffix(b"\n"), before), problem)
            # Nothing that follows can be told apart from it.
            return False
        before_last = previous
        digest = hashlib.sha256(previous + content)
        stated = line[: _PREFIX - 1]
        previous = digest.digest()
        if digest.hexdigest().encode() != stated:
            good = False
            message = "does not follow from the line before it: it was changed, or lines were changed, dropped or put in here"
            report.found(number, Kind.DAMAGED, _where(content, before), message)
            previous = _resumed(stated, previous)
    if not good:
        return False
    return _ends_with_seal(number, content, before_last, report)


def _ends_with_seal(number: int, content: bytes, before: bytes, report: Report) -> bool:
    try:
        record = decoded(content) if number else {}
        kind = check_form(record) if number else ""
    except MalformedError:
        kind = ""
    if kind != "seal":
        where = f"the end of the file, after {_label_of(content)}" if number else "the end of the file"
        report.found(number + 1, Kind.DAMAGED, where, "there is no seal: the file is cut off")
        return False
    report.counts["lines"] = number
    _check_seal(Line(number, record), before, report)
    return True


def _check_seal(line: Line, before: bytes, report: Report) -> None:
    seal = line.record
    if seal["records"] != line.number - 1:
        message = f"speaks of {seal['records']} lines before it; there are {line.number - 1}"
        report.found(line.number, Kind.SEAL, line.label, message)
    public_key = bytes.fromhex(seal["public_key"])
    text = seal_text(
        cluster=report.cluster,
        colony=report.colony,
        time_ms=seal["time_ms"],
        records=seal["records"],
        digest=before.hex(),
    )
    report.sealed_by, report.sealed_at_ms = identity_of(public_key), seal["time_ms"]
    report.counts["signatures"] += 1
    if signer_of(public_key, bytes.fromhex(seal["signature"]), text) is None:
        report.found(line.number, Kind.SEAL, line.label, "its signature does not fit this file")


def read_header(file: BinaryIO) -> Line:
    """The first line.

    Raises:
        MalformedError: it is no header.
    """
    line = file.readline(MAX_LINE_BYTES + 1)
    record = decoded(line[_PREFIX:].removesuffix(b"\n"))
    if check_form(record) != "header":
        msg = "the first line is no header"
        raise MalformedError(msg)
    return Line(1, record)


def records(file: BinaryIO, report: Report) -> Iterator[tuple[str, Line]]:
    """The well-formed records of a file whose digests are right, with their kinds; the others are found.

    Raises:
        TooMany: enough was found.
    """
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        content = line[_PREFIX:-1]
        try:
            record = decoded(content)
            kind = check_form(record)
        except MalformedError as error:
            report.found(number, Kind.MALFORMED, _label_of(content), str(error))
        else:
            yield kind, Line(number, record)
