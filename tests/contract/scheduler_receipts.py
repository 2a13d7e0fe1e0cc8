"""The check of receipts: every process's ledger is one chain of hashes, and each signed call that it names is kept, no other."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from colonies.audit.chains import event_hash, process_root
from servicekit.clock import EPOCH

Row = dict[str, Any]


def check_receipts(rows: Mapping[str, Sequence[Row]]) -> None:
    """Fails unless that is so.

    Args:
        rows: all of the tables "process", "ledger" and "receipt".
    """
    lines = defaultdict(list)
    for line in sorted(rows["ledger"], key=lambda line: int(line["id"])):
        lines[line["process_id"]].append(line)
    for process in rows["process"]:
        check_chain(process, lines[process["id"]])
    names = [line[column] for line in rows["ledger"] for column in ("receipt", "output_receipt")]
    # What set the outputs of a running attempt stands in no line yet.
    open_names = [process["output_receipt"] for process in rows["process"] if process["state"] == 2]
    wanted = Counter(bytes(name) for name in [*names, *open_names] if name is not None)
    assert {bytes(receipt["digest"]): receipt["uses"] for receipt in rows["receipt"]} == dict(wanted)


def check_chain(process: Row, lines: Sequence[Row]) -> None:
    """The hashes of one process's lines, worked out anew."""
    if process["receipt"] is None:
        assert process["chain"] is None
        assert all(line["hash"] is None for line in lines)
        return
    previous = process_root(
        colony=process["colony"],
        process=str(process["id"]),
        workflow=str(process["workflow_id"] or ""),
        initiator=process["initiator"],
        initiator_name=process["initiator_name"],
        submitted_us=microseconds(process["submitted_at"]),
        priority_time=process["priority_time"],
        call=hexed(process["receipt"]),
        place=process["place"],
    )
    for line in lines:
        previous = event_hash(
            previous,
            at_us=microseconds(line["at"]),
            from_state=line["from_state"],
            to_state=line["to_state"],
            attempt=line["attempt"],
            executor_name=line["executor_name"],
            actor=line["actor"],
            reason=line["reason"],
            outcome=line["outcome"],
            errors=line["errors"],
            call=hexed(line["receipt"]),
            output_call=hexed(line["output_receipt"]),
        )
        assert hexed(line["hash"]) == previous, (line, previous)
    assert hexed(process["chain"]) == previous


def microseconds(moment: Any) -> int:
    """Since 1970."""
    return int((moment - EPOCH) // timedelta(microseconds=1))


def hexed(digest: bytes | None) -> str:
    """Empty for none."""
    return "" if digest is None else bytes(digest).hex()
