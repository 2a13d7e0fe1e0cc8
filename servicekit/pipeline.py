"""What every call goes through, in this order, before its servicer sees it:

    observed (request id, log line, metrics)
      errors become status codes (servicekit.status)
        signature and time (servicekit.signature)
          nonce claimed (servicekit.nonces)
            size, colony and account read from the very bytes that were signed (servicekit.envelope)
              role worked out (servicekit.directory), policy asked (servicekit.policy)
                request parsed whole
                  servicer

A stream is opened by one signed request; it is cut when its caller's membership changes so that the policy would not let it
in any more, and when the process drains.
"""

import asyncio
import re
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import grpc
import structlog

from servicekit import metrics
from servicekit.bounds import IDENTITY, NAME, NAME_RULE, shown
from servicekit.caller import MEMBER_ROLES, Caller, Member, Role, set_current
from servicekit.clock import NS_PER_MS, Clock
from servicekit.directory import Directory
from servicekit.drain import Drain
from servicekit.envelope import Envelope, RequestType
from servicekit.failures import (
    Failure,
    InvalidArgument,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
    Violation,
    stranger_denied,
)
from servicekit.nonces import Nonces
from servicekit.policy import Policy, Rule
from servicekit.signature import Signed, check_call
from servicekit.status import CODES, abort

log = structlog.get_logger()

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]

REQUEST_ID_HEADER = "x-request-id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
# A stream's caller is looked up again this often even when no change was pushed: with auth away, streams fail closed too.
RECHECK_S = 30.0


@dataclass(frozen=True, slots=True)
class Identities:
    """Who is known by identity alone."""

    server_owner: str
    services: Mapping[str, str]

    def role_of(self, identity: str) -> tuple[Role, str]:
        """The role that an identity has whatever the colony, and its name."""
        if identity == self.server_owner:
            return Role.SERVER_OWNER, "server owner"
        for name, service in self.services.items():
            if identity == service:
                return Role.SERVICE, name
        return Role.ANYONE, ""


class Gate:
    """Decides whether a signed request may go on, and as whom."""

    def __init__(
        self,
        *,
        audience: str,
        clock: Clock,
        nonces: Nonces,
        members: Directory[Member],
        identities: Identities,
        policy: Policy,
    ) -> None:
        self._audience = audience
        self._clock = clock
        self._nonces = nonces
        self._members = members
        self._identities = identities
        self._policy = policy

    def is_public(self, service: str) -> bool:
        """Whether a service (full name) is open to unsigned calls."""
        return service in self._policy.public_services

    async def authenticate(self, method: str, headers: Mapping[str, str], body: bytes) -> Signed:
        """Who signed this call.

        Raises:
            Unauthenticated: nobody, too long ago, or it has been used before.
            Unavailable: whether it has been used before cannot be known.
        """
        now_ms = self._clock.now_ns() // NS_PER_MS
        signed = check_call(headers, method=method, audience=self._audience, body=body, now_ms=now_ms)
        if not await self._nonces.claim(signed.identity, signed.nonce):
            msg = "this signed call was made before; each needs a nonce of its own"
            raise Unauthenticated(msg, reason="SIGNATURE_REPLAYED")
        return signed

    async def admit(self, method: str, identity: str, envelope: Envelope) -> Caller:
        """The caller, if the policy lets it make this request.

        Raises:
            PermissionDenied: it does not.
            Unavailable: its role cannot be known.
        """
        rule = self._policy.rules.get(method)
        if rule is None:
            msg = "this method is not in the policy"
            raise PermissionDenied(msg, reason="NOT_IN_POLICY")
        colony = envelope.colony or ""
        role, name = self._identities.role_of(identity)
        owns_all = rule.grants_role(role, name)
        if not owns_all:
            if envelope.colony is None:
                msg = "this identity may not call this method"
                raise PermissionDenied(msg, reason="ROLE_NOT_ALLOWED")
            if NAME.match(colony) is None:
                # Nobody is a member of it: not worth a look-up, nor a place in the directory.
                raise InvalidArgument([Violation("colony_name", f"{NAME_RULE}; got {shown(colony)}")])
            role, name, owns_all = await self._as_member(rule, colony, identity)
        account = Member(identity, role, name)
        if role is Role.SERVICE and envelope.can_represent:
            account = await self._represented(rule, colony, envelope.on_behalf_of)
        elif envelope.on_behalf_of:
            msg = "only services act on behalf of others"
            raise PermissionDenied(msg, reason="ON_BEHALF_NOT_ALLOWED")
        return Caller(identity, colony, role, name, account, owns_all)

    async def _as_member(self, rule: Rule, colony: str, identity: str) -> tuple[Role, str, bool]:
        member = await self._members.get(colony, identity)
        if member is None:
            raise stranger_denied()
        owns_all = rule.grants_role(member.role, "")
        if not owns_all and not (rule.initiators and member.role in MEMBER_ROLES):
            msg = f"not for the role {member.role}"
            raise PermissionDenied(msg, reason="ROLE_NOT_ALLOWED")
        return member.role, member.name, owns_all

    async def _represented(self, rule: Rule, colony: str, identity: str) -> Member:
        """The member on whose behalf a service calls: what it may not do itself, nobody does for it."""
        if NAME.match(colony) is None or IDENTITY.match(identity) is None:
            msg = f"must be the identity of a member of the request's colony; got {shown(identity)}"
            raise InvalidArgument([Violation("on_behalf_of", msg)])
        member = await self._members.get(colony, identity)
        if member is None or not rule.grants_role(member.role, ""):
            msg = "the member on whose behalf this call is made may not make it (any more)"
            raise PermissionDenied(msg, reason="ON_BEHALF_REVOKED")
        return member

    @contextmanager
    def watching(self, colony: str, identity: str) -> Iterator[asyncio.Event]:
        """An event that is set when the identity's place in the colony may have changed."""
        with self._members.watching(colony, identity) as event:
            yield event


class CallPipeline(grpc.aio.ServerInterceptor):
    """Wraps every handler of the server in the chain above."""

    def __init__(self, gate: Gate, drain: Drain) -> None:
        self._gate = gate
        self._drain = drain
        self._wrapped: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    async def intercept_service(self, continuation: Any, details: grpc.HandlerCallDetails) -> Any:
        method: str = details.method
        known = self._wrapped.get(method)
        if known is not None:
            return known
        handler = await continuation(details)
        if handler is None or self._gate.is_public(method.split("/")[1]):
            return handler
        # Raw bytes in: what is hashed is what came over the wire.
        wrapped: grpc.RpcMethodHandler[Any, Any]
        if handler.response_streaming:
            wrapped = grpc.unary_stream_rpc_method_handler(
                self._stream(method, handler), response_serializer=handler.response_serializer
            )
        else:
            wrapped = grpc.unary_unary_rpc_method_handler(
                self._unary(method, handler), response_serializer=handler.response_serializer
            )
        self._wrapped[method] = wrapped
        return wrapped

    async def _admitted(
        self, method: str, request_type: RequestType, body: bytes, headers: Mapping[str, str]
    ) -> tuple[Envelope, Caller]:
        signed = await self._gate.authenticate(method, headers, body)
        envelope = request_type.envelope(body)
        caller = await self._gate.admit(method, signed.identity, envelope)
        set_current(caller)
        return envelope, caller

    def _unary(self, method: str, handler: Any) -> Callable[..., Any]:
        request_type = RequestType(method)

        async def call(body: bytes, context: Context) -> Any:
            with _Observation(method, _headers(context)) as observation:
                try:
                    await self._admitted(method, request_type, body, observation.headers)
                    return await handler.unary_unary(request_type.parse(body), context)
                except Failure as failure:
                    await observation.end(context, failure)
                except grpc.aio.AbortError:
                    raise
                except Exception as error:  # noqa: BLE001 - the last line of defence: logged, and told without its text
                    await observation.crash(context, error)

        return call

    def _stream(self, method: str, handler: Any) -> Callable[..., Any]:
        request_type = RequestType(method)

        async def call(body: bytes, context: Context) -> AsyncIterator[Any]:
            with _Observation(method, _headers(context)) as observation:
                try:
                    envelope, caller = await self._admitted(method, request_type, body, observation.headers)
                    responses = handler.unary_stream(request_type.parse(body), context)
                    async for response in self._guarded(method, envelope, caller, responses):
                        yield response
                except Failure as failure:
                    await observation.end(context, failure)
                except grpc.aio.AbortError:
                    raise
                except Exception as error:  # noqa: BLE001 - as above
                    await observation.crash(context, error)

        return call

    async def _guarded(
        self, method: str, envelope: Envelope, caller: Caller, responses: AsyncIterator[Any]
    ) -> AsyncIterator[Any]:
        """The stream's responses, while its caller may have them and the process does not drain."""
        member = bool(caller.colony) and caller.role in MEMBER_ROLES
        watching = self._gate.watching(caller.colony, caller.identity) if member else nullcontext(asyncio.Event())
        following: asyncio.Future[Any] | None = None
        with watching as changed:
            cut = asyncio.ensure_future(changed.wait())
            draining = asyncio.ensure_future(self._drain.started.wait())
            try:
                while True:
                    following = following or asyncio.ensure_future(anext(responses, None))
                    await asyncio.wait((following, cut, draining), timeout=RECHECK_S, return_when=asyncio.FIRST_COMPLETED)
                    if draining.done():
                        msg = "this replica is shutting down; open the stream again"
                        raise Unavailable(msg, reason="DRAINING", retry_delay_s=0.1)
                    if cut.done() or not following.done():
                        changed.clear()
                        if cut.done():
                            cut = asyncio.ensure_future(changed.wait())
                        await self._gate.admit(method, caller.identity, envelope)
                        continue
                    response = following.result()
                    following = None
                    if response is None:
                        return
                    yield response
            finally:
                for task in (cut, draining, following):
                    if task is not None:
                        # Awaited even when it is done: an error that nobody fetched would be logged as a defect.
                        task.cancel()
                        await asyncio.gather(task, return_exceptions=True)
                await responses.aclose()  # type: ignore[attr-defined]  # servicers' streams are generators


def _headers(context: Context) -> dict[str, str]:
    return {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}


class _Observation:
    """One call's request id, log line and metrics."""

    def __init__(self, method: str, headers: dict[str, str]) -> None:
        self.headers = headers
        given = headers.get(REQUEST_ID_HEADER, "")
        self._request_id = given if _REQUEST_ID.match(given) else uuid.uuid4().hex
        self._method = method
        self._code = grpc.StatusCode.OK
        self._reason = ""
        self._begin = 0.0

    def __enter__(self) -> Self:
        structlog.contextvars.bind_contextvars(request_id=self._request_id, method=self._method)
        self._begin = time.perf_counter()
        metrics.IN_FLIGHT.labels(self._method).inc()
        return self

    def __exit__(self, kind: type[BaseException] | None, _error: object, _trace: object) -> None:
        if kind is not None and issubclass(kind, asyncio.CancelledError | GeneratorExit):
            self._code = grpc.StatusCode.CANCELLED
        metrics.IN_FLIGHT.labels(self._method).dec()
        seconds = time.perf_counter() - self._begin
        metrics.SECONDS.labels(self._method).observe(seconds)
        metrics.HANDLED.labels(self._method, self._code.name).inc()
        if self._code in {grpc.StatusCode.OK, grpc.StatusCode.CANCELLED}:
            log.debug("call", code=self._code.name, seconds=round(seconds, 6))
        else:
            log.info("call", code=self._code.name, reason=self._reason, seconds=round(seconds, 6))
        structlog.contextvars.unbind_contextvars("request_id", "method")

    async def end(self, context: Context, failure: Failure) -> None:
        """Ends the call with a failure."""
        self._code, self._reason = CODES[type(failure)], failure.reason
        await abort(context, failure)

    async def crash(self, context: Context, error: Exception) -> None:
        """Ends the call after a defect of ours: the log has the trace, the caller the id to find it by."""
        self._code, self._reason = grpc.StatusCode.INTERNAL, type(error).__name__
        log.error("defect", exc_info=error)
        await context.abort(grpc.StatusCode.INTERNAL, f"internal error; the log has it under request id {self._request_id}")
