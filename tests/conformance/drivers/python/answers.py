"""What a driver answers without a connection: who it is, what it signs, how it writes and reads values."""

import platform
from collections.abc import Callable
from typing import Any

from colonies import values
from colonies.keys import PrivateKey
from colonies.scheduler.v1.spec_pb2 import Value
from colonies.signing import Signer, call_digest, call_text, join_text, rotate_text

LANGUAGE = "python"

Message = dict[str, Any]


def _hello(_command: Message) -> Message:
    return {"language": LANGUAGE, "version": platform.python_version()}


def _key(command: Message) -> PrivateKey:
    return PrivateKey.from_hex(command["seed"])


def _identity(command: Message) -> Message:
    key = _key(command)
    return {"public_key": key.public_key.hex(), "identity": key.identity}


def _sign_call(command: Message) -> Message:
    key = _key(command)
    body = bytes.fromhex(command["body"]) * command.get("body_times", 1)
    method, audience, time_ms, nonce = (command[name] for name in ("method", "audience", "time_ms", "nonce"))
    # With a prefix as long as a nonce, nothing is left to be made up.
    signer = Signer(key, audience, clock_ms=lambda: int(time_ms), nonce_prefix=nonce)
    metadata = dict(signer.headers(method, body))
    text = call_text(method=method, audience=audience, time_ms=time_ms, nonce=nonce, body=body)
    digest = call_digest(text, key.public_key, bytes.fromhex(metadata["colonies-signature"]))
    return {"metadata": metadata, "digest": digest}


def _prove_join(command: Message) -> Message:
    named = {name: command[name] for name in ("audience", "colony", "role", "name", "time_ms")}
    return {"signature": _key(command).sign(join_text(**named)).hex()}


def _prove_rotation(command: Message) -> Message:
    text = rotate_text(
        audience=command["audience"], colony=command["colony"], old=command["old_key"], time_ms=command["time_ms"]
    )
    return {"signature": _key(command).sign(text).hex()}


def own_value(text: str) -> Any:
    """The value that Python has for a JSON text.

    Raises:
        ValueEncodingError: it has none.
    """
    return values.decode(Value(data=text.encode()))


def text_of(value: Any) -> str:
    """A value as JSON.

    Raises:
        ValueEncodingError: it cannot be written.
    """
    return values.encode(value).data.decode()


def _encode(command: Message) -> Message:
    value = bytes.fromhex(command["bytes"]) if "bytes" in command else own_value(command["json"])
    encoded = values.encode(value)
    return {"media_type": encoded.media_type, "data": encoded.data.hex()}


def _decode(command: Message) -> Message:
    value = values.decode(Value(media_type=command["media_type"], data=bytes.fromhex(command["data"])))
    if isinstance(value, Value):
        return {"media_type": value.media_type, "bytes": value.data.hex()}
    return {"bytes": value.hex()} if isinstance(value, bytes) else {"json": text_of(value)}


PLAIN: dict[str, Callable[[Message], Message]] = {
    "hello": _hello,
    "identity": _identity,
    "sign_call": _sign_call,
    "prove_join": _prove_join,
    "prove_rotation": _prove_rotation,
    "encode": _encode,
    "decode": _decode,
}
