"""Calls that are not signed as they should be: refused with the reason, and nothing is changed."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import grpc
import pytest
from redis.asyncio import Redis

from colonies import AsyncClient
from colonies.auth.v1 import auth_service_pb2 as pb
from colonies.auth.v1.auth_service_pb2_grpc import AuthServiceStub
from colonies.errors import UnavailableError
from colonies.signing import KEY_HEADER, NONCE_HEADER, SIGNATURE_HEADER, TIME_HEADER, Signer, SigningChannel
from tests.fault.proxy import Proxy
from tests.harness.calls import refusal
from tests.harness.cluster import CLUSTER, COLONY, Cluster
from tests.harness.keys import key_of
from tests.harness.servers import running_valkey

pytestmark = pytest.mark.asyncio

METHOD = "/colonies.auth.v1.AuthService/AddUser"
OTHER_METHOD = "/colonies.auth.v1.AuthService/RemoveUser"
HEADERS = (KEY_HEADER, TIME_HEADER, NONCE_HEADER, SIGNATURE_HEADER)
SKEW_MS = 60_000

Headers = dict[str, str]


@dataclass(frozen=True, slots=True)
class Attempt:
    """A call that would add a user if it were let in."""

    cluster: Cluster
    body: bytes
    # What the memory of nonces asks for, which began with the test.
    prefix: str

    def headers(self, *, method: str = METHOD, audience: str = CLUSTER, shift_ms: int = 0) -> Headers:
        """What the owner would send along."""
        signer = Signer(self.cluster.keys.owner, audience, lambda: self.cluster.clock_ms() + shift_ms, self.prefix)
        return dict(signer.headers(method, self.body))

    def send(self, headers: Headers, body: bytes | None = None, *, replica: int = 0) -> Any:
        """Makes the call."""
        call: Any = self.cluster.channel("auth", replica=replica).unary_unary(METHOD, None, None)
        return call(self.body if body is None else body, metadata=grpc.aio.Metadata(*headers.items()))

    async def users(self) -> set[str]:
        """The colony's users."""
        auth = self.cluster.stub(AuthServiceStub, self.cluster.keys.owner)
        response = await auth.ListUsers(pb.ListUsersRequest(colony_name=COLONY))
        return {user.name for user in response.users}

    async def refused(self, reason: str, headers: Headers, body: bytes | None = None) -> None:
        """Makes the call, which must be refused for this reason and change nothing."""
        error = await refusal(self.send(headers, body))
        assert (error.code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED, reason)
        assert await self.users() == {"alice"}


Ready = Callable[[Cluster], Awaitable[Attempt]]
Start = Callable[..., Any]


@pytest.fixture
def attempt_in() -> Ready:
    """Readies a call that adds the user "mallory"."""

    async def make(cluster: Cluster) -> Attempt:
        proof = cluster.proof(key_of("mallory"), colony=COLONY, role="user", name="mallory")
        request = pb.AddUserRequest(colony_name=COLONY, name="mallory", user=proof)
        signer = cluster.signer(cluster.keys.owner)
        await AuthServiceStub(SigningChannel(cluster.channel("auth"), signer)).GetServerInfo(pb.GetServerInfoRequest())
        return Attempt(cluster, request.SerializeToString(), signer.nonce_prefix)

    return make


async def test_a_well_signed_call_is_let_in_so_that_the_others_prove_something(new_cluster: Start, attempt_in: Ready) -> None:
    attempt = await attempt_in(await new_cluster(services=("auth",)))
    await attempt.send(attempt.headers())
    assert await attempt.users() == {"alice", "mallory"}


async def test_missing_and_malformed_headers(new_cluster: Start, attempt_in: Ready) -> None:
    attempt = await attempt_in(await new_cluster(services=("auth",)))
    await attempt.refused("SIGNATURE_MISSING", {})
    for name in HEADERS:
        headers = attempt.headers()
        value = headers.pop(name)
        await attempt.refused("SIGNATURE_MISSING", headers)
        for malformed in ("", "x", value + "0" * 200, value[:-1] + "g", value.upper() + "A", "-1"):
            await attempt.refused("SIGNATURE_MALFORMED", {**headers, name: malformed})


async def test_whatever_is_tampered_with_breaks_the_signature(new_cluster: Start, attempt_in: Ready) -> None:
    attempt = await attempt_in(await new_cluster(services=("auth",)))
    headers = attempt.headers()
    other = dict(Signer(key_of("other"), CLUSTER, attempt.cluster.clock_ms).headers(METHOD, attempt.body))
    await attempt.refused("SIGNATURE_INVALID", headers, attempt.body + b"\x00")
    await attempt.refused("SIGNATURE_INVALID", headers, b"")
    await attempt.refused("SIGNATURE_INVALID", {**headers, TIME_HEADER: str(int(headers[TIME_HEADER]) + 1)})
    for name in (KEY_HEADER, NONCE_HEADER, SIGNATURE_HEADER):
        await attempt.refused("SIGNATURE_INVALID", {**headers, name: other[name]})
    # A key that is no point of the curve is no crash either.
    await attempt.refused("SIGNATURE_INVALID", {**headers, KEY_HEADER: "ff" * 32})


async def test_old_and_early_signatures(new_cluster: Start, attempt_in: Ready) -> None:
    attempt = await attempt_in(await new_cluster(services=("auth",)))
    await attempt.refused("SIGNATURE_STALE", attempt.headers(shift_ms=-SKEW_MS - 1_000))
    await attempt.refused("SIGNATURE_STALE", attempt.headers(shift_ms=SKEW_MS + 1_000))
    error = await refusal(attempt.send(attempt.headers(shift_ms=-10 * SKEW_MS)))
    assert abs(int(error.metadata["server_time_ms"]) - attempt.cluster.clock_ms()) < SKEW_MS


async def test_signatures_for_something_else(new_cluster: Start, attempt_in: Ready) -> None:
    attempt = await attempt_in(await new_cluster(services=("auth",)))
    await attempt.refused("SIGNATURE_INVALID", attempt.headers(audience="another-cluster"))
    await attempt.refused("SIGNATURE_INVALID", attempt.headers(method=OTHER_METHOD))


async def test_a_call_is_good_once_on_all_replicas_together(new_cluster: Start, attempt_in: Ready) -> None:
    cluster = await new_cluster(services=("auth",))
    await cluster.start("auth")
    attempt = await attempt_in(cluster)
    headers = attempt.headers()
    await attempt.send(headers)
    for replica in (0, 1):
        error = await refusal(attempt.send(headers, replica=replica))
        assert (error.code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED, "SIGNATURE_REPLAYED")


async def test_of_many_copies_sent_at_once_one_gets_in(new_cluster: Start, attempt_in: Ready) -> None:
    cluster = await new_cluster(services=("auth",))
    await cluster.start("auth")
    attempt = await attempt_in(cluster)
    headers = attempt.headers()
    codes = [await call.code() for call in [attempt.send(headers, replica=index % 2) for index in range(50)]]
    assert codes.count(grpc.StatusCode.OK) == 1
    assert codes.count(grpc.StatusCode.UNAUTHENTICATED) == 49


async def test_what_was_let_in_is_refused_after_redis_lost_everything(
    new_cluster: Start, attempt_in: Ready, redis_url: str
) -> None:
    cluster = await new_cluster(services=("auth",))
    await cluster.start("auth")
    attempt = await attempt_in(cluster)
    made = [attempt.headers(shift_ms=shift_ms) for shift_ms in range(-SKEW_MS + 30_000, SKEW_MS, 5_000)]
    for headers in made:
        # The first enters the user, and the others find it there.
        await attempt.send(headers)
    async with Redis.from_url(redis_url) as redis:
        await redis.flushall()
    for index, headers in enumerate(made):
        error = await refusal(attempt.send(headers, replica=index % 2))
        assert (error.code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED, "NONCE_PREFIX_REQUIRED")
        assert error.metadata["nonce_prefix"] != attempt.prefix
        assert abs(int(error.metadata["server_time_ms"]) - cluster.clock_ms()) < SKEW_MS
    # Whoever signs anew gets in, and notices nothing.
    assert await attempt.users() == {"alice", "mallory"}


async def test_what_was_let_in_is_refused_after_a_fail_over_to_an_empty_redis_and_clients_go_on(
    database_url: str, tmp_path: Path, attempt_in: Ready
) -> None:
    with running_valkey() as first, running_valkey() as second:
        parts = urlsplit(first.url())
        async with Redis.from_url(second.url()) as redis:
            # The services know one address and one password.
            await redis.config_set("requirepass", parts.password or "")
        # Where the way to Redis leads.
        serving = [first]
        proxy = Proxy(lambda: serving[0].port or 0)
        await proxy.start()
        url = urlunsplit(parts._replace(netloc=f":{parts.password}@127.0.0.1:{proxy.port}"))
        async with Cluster(database_url, url, tmp_path, services=("auth", "registry")) as cluster:
            attempt = await attempt_in(cluster)
            headers = attempt.headers()
            await attempt.send(headers)
            host, _, port = cluster.replicas["auth"][0].address.rpartition(":")
            async with AsyncClient(host, int(port), COLONY, cluster.keys.owner, CLUSTER) as client:
                request = pb.ListUsersRequest(colony_name=COLONY)
                await client.call(client.auth.ListUsers, request)
                serving[0] = second
                first.kill()
                # It rides out the outage and is signed anew, all by itself.
                response = await client.call(client.auth.ListUsers, request)
                assert {user.name for user in response.users} == {"alice", "mallory"}
            error = await refusal(attempt.send(headers))
            assert error.reason == "NONCE_PREFIX_REQUIRED"
            # The services' calls between each other go through, too: the registry tells auth.
            await cluster.add_executor(COLONY, cluster.keys.owner, "worker-3", key_of("worker-3"))
        await proxy.stop()


async def test_a_strangers_copy_gets_a_strangers_answer(new_cluster: Start, attempt_in: Ready) -> None:
    """Whether it was made before or not: who may not call is told nothing of nonces."""
    cluster = await new_cluster(services=("auth",))
    attempt = await attempt_in(cluster)
    signer = cluster.signer(cluster.keys.stranger)
    headers = dict(signer.headers(METHOD, attempt.body))
    for _ in range(3):
        error = await refusal(attempt.send(headers))
        assert (error.code, error.reason) == (grpc.StatusCode.PERMISSION_DENIED, "NOT_A_MEMBER")


async def test_a_body_that_is_no_message_is_refused_only_after_its_signature(new_cluster: Start, attempt_in: Ready) -> None:
    attempt = await attempt_in(await new_cluster(services=("auth",)))
    garbage = Attempt(attempt.cluster, b"\xff\xff\xff", attempt.prefix)
    error = await refusal(garbage.send(garbage.headers()))
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert [violation.field for violation in error.violations] == ["request"]


async def test_without_redis_no_call_gets_in(new_cluster: Start, attempt_in: Ready) -> None:
    cluster = await new_cluster(services=("auth",))
    # Nothing listens on port 1.
    await cluster.start("auth", redis_url="redis://127.0.0.1:1")
    attempt = await attempt_in(cluster)
    error = await refusal(attempt.send(attempt.headers(), replica=1))
    assert isinstance(error, UnavailableError)
    assert error.retry_delay is not None
    assert await attempt.users() == {"alice"}
