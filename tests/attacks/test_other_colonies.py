"""A member of one colony who knows the ids and names of another: it reaches nothing, and learns nothing."""

import json
import re
from collections.abc import Mapping
from typing import Any

import grpc
import pytest

from colonies.errors import from_rpc_error
from colonies.signing import SigningChannel
from tests.harness.calls import first
from tests.harness.cluster import Cluster
from tests.rpc.methods import Method, all_methods

from .places import ACME, NAMED, NOWHERE, UMBRELLA, Place, furnish
from .requests import Slot, filled, slots
from .tables import Contents, contents

ROLES = ("colony_owner", "user", "executor")
# Text fields that name something that is there, by what `Place.values` calls it; and those that are the caller's own words.
NAMING = {
    "process_id", "process_ids", "workflow_id", "workflow_ids", "identity", "initiator", "executor_name", "executor_names",
    "location_name", "name", "channel",
}  # fmt: skip
WORDS = {
    "colony_name", "colony", "request_id", "method", "node_name", "func_name", "label", "labels", "channels", "executor_type", "executor_types",
    "key", "value", "values", "message", "errors", "media_type", "description", "type", "enum_values", "expression", "cpu", "memory",
    "storage", "on_behalf_of", "cursor", "time_zone",
}  # fmt: skip
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# Times, places in queues and the like may differ between two calls.
NUMBERS = re.compile(r"(seconds|nanos|cursor|next_cursor|place|lane_length|last_heard_time): \S+")


def test_every_text_field_of_every_request_is_known_here() -> None:
    found = {slot.field for method in all_methods() for slot in slots(method)}
    assert found - NAMING - WORDS == set()


def naming_slots(method: Method) -> set[str]:
    """The keys of `Place.values` by which a method's requests name something."""
    known = ACME.values()
    keys = set()
    for slot in slots(method):
        if slot.field in NAMING:
            keys.add(next((key for key in _keys(slot) if key in known), ""))
    return keys - {""}


def _keys(slot: Slot) -> tuple[str, str, str]:
    return f"{slot.method}:{slot.field}", f"{slot.message}.{slot.field}", slot.field


async def outcome(cluster: Cluster, method: Method, place: Place, role: str, values: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a call ends with, without what names the two colonies' things, times and new ids."""
    channel = SigningChannel(cluster.channel(method.service), cluster.signer(place.keys[role]))
    try:
        call = method.call(channel, filled(method, values))
        response = await (first(call) if method.descriptor.server_streaming else call)
    except grpc.aio.AioRpcError as error:
        refused = from_rpc_error(error)
        fields = [(one.field, scrubbed(one.description)) for one in refused.violations]
        metadata = {key: scrubbed(text) for key, text in refused.metadata.items()}
        return (refused.code, refused.reason, scrubbed(str(refused)), fields, metadata)
    return (grpc.StatusCode.OK, scrubbed(str(response)))


def scrubbed(text: str) -> str:
    """Without what is meant to differ: the names that were asked for."""
    for place in (ACME, NOWHERE):
        for words in (place.names.values(), (key.identity for key in place.keys.values())):
            for word in words:
                text = text.replace(word, "NAMED") if len(word) > 1 else re.sub(rf"\b{word}\b", "NAMED", text)
    return NUMBERS.sub(r"\1: N", UUID.sub("ID", text))


def of_acme(database_url: str, acme: Place, umbrella: Place) -> Contents:
    """The rows that have anything of the first colony in them."""
    marks = (acme.colony, acme.process_id, acme.workflow_id, *(key.identity for key in acme.keys.values()))
    return contents(
        database_url,
        wanted=lambda row: row.get("colony", "") != umbrella.colony and any(mark in json.dumps(row) for mark in marks),
    )


@pytest.mark.asyncio
@pytest.mark.timeout(300)
@pytest.mark.parametrize("role", ROLES)
async def test_ids_of_another_colony_are_as_ids_of_nothing(cluster: Cluster, database_url: str, role: str) -> None:
    """Each id or name in each request of each method, one at a time among the caller's own."""
    acme, umbrella = await furnish(cluster, ACME), await furnish(cluster, UMBRELLA)
    before = of_acme(database_url, acme, umbrella)
    differing, tried = [], 0
    for method in all_methods():
        if not method.in_colony:
            continue
        for key in sorted(naming_slots(method)):
            answers = []
            for named in (acme, NOWHERE):
                values = {
                    **umbrella.values(),
                    "request_id": f"{method.descriptor.name}-{key}-{named.colony}",
                    key: named.values()[key],
                }
                answers.append(await outcome(cluster, method, umbrella, role, values))
            tried += 1
            if answers[0] != answers[1] or acme.colony in str(answers[0]):
                differing.append((method.descriptor.name, key, *answers))
    assert differing == []
    assert of_acme(database_url, acme, umbrella) == before
    assert tried > 50


@pytest.mark.asyncio
async def test_under_the_other_colonys_own_name_they_are_strangers(cluster: Cluster, database_url: str) -> None:
    acme, umbrella = await furnish(cluster, ACME), await furnish(cluster, UMBRELLA)
    before = contents(database_url)
    differing = []
    for method in all_methods():
        for role in ROLES if method.in_colony else ():
            answer = await outcome(cluster, method, umbrella, role, acme.values())
            elsewhere = await outcome(cluster, method, umbrella, role, NOWHERE.values())
            if answer != elsewhere or answer[:2] != (grpc.StatusCode.PERMISSION_DENIED, "NOT_A_MEMBER"):
                differing.append((method.descriptor.name, role, answer, elsewhere))
    assert differing == []
    assert contents(database_url) == before


def test_both_colonies_have_all_kinds_of_names() -> None:
    assert set(ACME.names) == set(UMBRELLA.names) == set(NOWHERE.names) == set(NAMED)
    assert not {*ACME.names.values()} & {*UMBRELLA.names.values()}
