"""Pages: under a strict policy, sent once while they stay the same, and nothing else of this machine."""

import re

import pytest

from services.gateway import pages

from .http import ask, request
from .stage import Stage

pytestmark = pytest.mark.asyncio


async def test_every_page_is_served_under_a_strict_policy_and_once(here: Stage) -> None:
    every = pages.load()
    assert {"/", "/style.css", "/openapi.json", "/reference"} <= set(every)
    for path, page in every.items():
        reply = await ask(here.port, request("GET", path))
        assert (reply.status, reply.body) == (200, page.body), path
        policy = reply.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert "*" not in policy
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["referrer-policy"] == "no-referrer"
        etag = reply.headers["etag"]
        for known in (etag, f'"other", {etag}', f"W/{etag}"):
            again = await ask(here.port, request("GET", path, [("if-none-match", known)]))
            assert (again.status, again.body, again.headers["etag"]) == (304, b"", etag)
        changed = await ask(here.port, request("GET", path, [("if-none-match", '"other"')]))
        assert changed.status == 200
    head = request("HEAD", "/", [("connection", "close")])
    # Of a HEAD's answer there is only the head.
    assert (await ask_head(here.port, head)) == 200


async def ask_head(port: int, data: bytes) -> int:
    from .http import Connection

    async with await Connection.to(port) as connection:
        connection.send(data)
        status = await connection.head()
        assert int(connection.headers["content-length"]) > 0
        return status


async def test_pages_need_no_inline_code_and_nothing_from_elsewhere() -> None:
    for path, page in pages.load().items():
        if not page.kind.startswith("text/html"):
            continue
        text = page.body.decode()
        assert "<style" not in text, path
        assert not re.search(r"<script(?![^>]*\bsrc=)", text), path
        assert not re.search(r"\s(on[a-z]+|style)\s*=", text), path
        assert not re.search(r"(src|href)=\"(https?:)?//", text), path


async def test_there_is_nothing_else(here: Stage) -> None:
    for path in (
        "/nothing",
        "/index.html",
        "/../settings.py",
        "/..%2fsettings.py",
        "/pages/",
        "/sdk/web/",
        "/metrics",
        "/style.css/",
        "//",
    ):
        reply = await ask(here.port, request("GET", path))
        assert reply.status in {404, 400}, (path, reply)
    posted = await ask(here.port, request("POST", "/", body=b""))
    assert (posted.status, posted.headers["allow"]) == (405, "GET")
    assert (await ask(here.port, request("POST", "/nothing", body=b""))).status == 404
    # Whatever the path and the verb, it is answered in the one form, under the one policy.
    for verb, path, status in (("TRACE", "/", 405), ("PROPFIND", "/", 405), ("GET", "/api", 404), ("GET", "/a%0d%0ab", 404)):
        reply = await ask(here.port, request(verb, path))
        assert (reply.status, reply.headers["content-type"]) == (status, "application/json"), (verb, path, reply)
        assert reply.headers["content-security-policy"].startswith("default-src 'none'")
    health = await ask(here.port, request("GET", "/healthz"))
    assert (health.status, health.body) == (200, b"ok")


async def test_pages_are_told_the_cluster(here: Stage) -> None:
    gateway = await here.open(cluster="c-1")
    reply = await ask(gateway.port, request("GET", "/config.json"))
    assert (reply.status, reply.headers["content-type"], reply.body) == (200, "application/json", b'{"cluster": "c-1"}')
    assert (await ask(here.port, request("GET", "/no-config.json"))).status == 404
