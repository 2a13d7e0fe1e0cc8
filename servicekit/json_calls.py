"""Requests and responses in JSON: a call of `/package.Service/Method+json` is one of `/package.Service/Method` in all but the
form of its messages.

The gate's part of a request is read as the servicer's is, by the same code from the same bytes, twice: between the two its
caller is looked up, and a document of some megabytes takes ten times as many in memory, which no stranger's is to hold.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from google.protobuf.message import Message

from colonies.errors import UnreadableRequestError
from colonies.json_calls import base_of, body_of, document_of, message_of
from servicekit.envelope import KIB, MIB, Envelope, RequestType
from servicekit.failures import InvalidArgument, Violation

# JSON is for those who write it themselves; what is larger is better sent in protobuf's own form, and costs far less.
LARGE_JSON_AT_MOST = 4 * MIB
# Keys, quotes and what makes a document pleasant to read, over what the same request has in protobuf's form.
JSON_OVER_KEPT = 2
# What is larger is read and written in a thread: other calls go on meanwhile.
ASIDE_FROM = 32 * KIB
# Documents of callers who may be strangers: 4 MiB can take 90 MiB of memory, and more threads would be no quicker.
GATE_READERS = 2

_gate_readers = ThreadPoolExecutor(GATE_READERS, thread_name_prefix="json-gate")

T = TypeVar("T")


class JsonRequestType(RequestType):
    """The request of one method, as JSON."""

    aside_from = ASIDE_FROM

    def __init__(self, method: str) -> None:
        """The method is named as its path is called, or without the suffix."""
        super().__init__(base_of(method))
        self.at_most = self.at_most * JSON_OVER_KEPT if self._is_kept else min(self.at_most, LARGE_JSON_AT_MOST)

    def envelope(self, body: bytes) -> Envelope:
        if not self._has_colony:
            return Envelope()
        document = _told(document_of, body)
        on_behalf_of = _text(document, "on_behalf_of", "onBehalfOf") if self._has_on_behalf_of else ""
        return Envelope(_text(document, "colony_name", "colonyName"), on_behalf_of, self._has_on_behalf_of)

    def parse(self, body: bytes) -> Message:
        return _told(lambda: message_of(document_of(body), self._message))


async def envelope_aside(request_type: RequestType, body: bytes) -> Envelope:
    """The envelope of a large request, read beside other calls; few at a time."""
    return await asyncio.get_running_loop().run_in_executor(_gate_readers, request_type.envelope, body)


async def json_of(message: Message) -> bytes:
    """A response as it is sent."""
    return body_of(message) if message.ByteSize() < ASIDE_FROM else await asyncio.to_thread(body_of, message)


def _text(document: dict[str, Any], name: str, json_name: str) -> str:
    """A field of the document that is a text; empty if it is not there, or null."""
    if name in document and json_name in document:
        raise InvalidArgument([Violation(name, f"is there twice, as {json_name} and as {name}")])
    value = document.get(json_name, document.get(name))
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidArgument([Violation(name, "must be a text")])
    return value


def _told(read: Callable[..., T], *of: bytes) -> T:
    """What is read, or a failure that names what could not be."""
    try:
        return read(*of)
    except UnreadableRequestError as error:
        raise InvalidArgument([Violation(error.field, error.description)]) from error
