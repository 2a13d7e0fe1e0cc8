"""A channel by which any stub's calls are made in JSON: whatever can be asked in protobuf's own form can be asked like that."""

from typing import Any

from google.protobuf import descriptor_pool
from google.protobuf.json_format import Parse
from google.protobuf.message_factory import GetMessageClass

from colonies.json_calls import SUFFIX, body_of


class JsonChannel:
    """Over a signing one, as the bytes that are sent are those that are signed."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    def unary_unary(self, method: str, *_: Any, **__: Any) -> Any:
        return self._channel.unary_unary(method + SUFFIX, body_of, _reader_of(method))

    def unary_stream(self, method: str, *_: Any, **__: Any) -> Any:
        return self._channel.unary_stream(method + SUFFIX, body_of, _reader_of(method))


def _reader_of(method: str) -> Any:
    service, _, name = method.strip("/").partition("/")
    response_type = GetMessageClass(descriptor_pool.Default().FindServiceByName(service).methods_by_name[name].output_type)
    return lambda body: Parse(body, response_type())
