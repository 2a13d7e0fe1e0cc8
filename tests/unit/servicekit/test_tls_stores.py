"""Postgres and Redis over TLS: what the URLs say of it reaches the servers' own clients."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from deploy.local.certificates import Authority
from servicekit import redis as servicekit_redis
from servicekit.failures import Unavailable
from servicekit.postgres import Database
from tests.harness.certificates import Pair


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create("test authority")


SSL_REQUEST = (8).to_bytes(4) + (80877103).to_bytes(4)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
    writer.close()


@asynccontextmanager
async def behind_tls(url: str, pair: Pair, *, postgres: bool = False) -> AsyncIterator[int]:
    """A port that speaks TLS and hands on to a server that cannot, as the embedded ones. Postgres is asked for it first."""
    address = urlsplit(url)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert_file, pair.key_file)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if postgres:
            assert await reader.readexactly(8) == SSL_REQUEST
            writer.write(b"S")
            try:
                await writer.start_tls(context)
            except ssl.SSLError:
                return  # the client does not trust it
        inner_reader, inner_writer = await asyncio.open_connection(address.hostname, address.port)
        await asyncio.gather(_copy(reader, inner_writer), _copy(inner_reader, writer))

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=None if postgres else context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@pytest.mark.asyncio
async def test_postgres_is_verified_as_the_url_says(database_url: str, authority: Authority, tmp_path: Path) -> None:
    pair, stranger = Pair(tmp_path, "server", authority), Pair(tmp_path, "stranger", Authority.create("another authority"))
    async with behind_tls(database_url, pair, postgres=True) as port:
        query = f"sslmode=verify-full&sslrootcert={pair.ca_file}"
        database = Database(at_port(database_url, port, "postgresql", query), "auth", connections=2)
        await database.open()
        try:
            async with database.transaction() as connection:
                assert connection.pgconn.ssl_in_use
        finally:
            await database.close()
        for ca_file, words in ((stranger.ca_file, "certificate verify failed"), (tmp_path / "none", "does not exist")):
            query = f"sslmode=verify-full&sslrootcert={ca_file}"
            with pytest.raises(psycopg.OperationalError, match=words):
                await psycopg.AsyncConnection.connect(at_port(database_url, port, "postgresql", query))


def at_port(url: str, port: int, scheme: str, query: str) -> str:
    address = urlsplit(url)
    location = address.netloc.rpartition("@")[0] + f"@127.0.0.1:{port}"
    return urlunsplit((scheme, location, address.path, query, ""))


@pytest.mark.asyncio
async def test_redis_is_verified_as_the_url_says(redis_url: str, authority: Authority, tmp_path: Path) -> None:
    pair = Pair(tmp_path, "server", authority)
    misnamed = Pair(tmp_path, "misnamed", authority, hosts=["elsewhere.example"])
    stranger = Pair(tmp_path, "stranger", Authority.create("another authority"))
    async with behind_tls(redis_url, pair) as port:
        client = servicekit_redis.connect(at_port(redis_url, port, "rediss", f"ssl_ca_certs={pair.ca_file}"))
        try:
            assert await client.ping()
            assert await client.commands.execute("ECHO", "hello") == "hello"
        finally:
            await client.aclose()
    for served, query in ((stranger, f"ssl_ca_certs={pair.ca_file}"), (misnamed, f"ssl_ca_certs={pair.ca_file}"), (pair, "")):
        async with behind_tls(redis_url, served) as port:
            client = servicekit_redis.connect(at_port(redis_url, port, "rediss", query))
            try:
                with pytest.raises(Unavailable):
                    await client.commands.execute("ECHO", "hello")
            finally:
                await client.aclose()
