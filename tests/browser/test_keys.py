"""Keys: made by the browser, kept by it, read by nobody; and what they sign is what the vectors say."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.browser.stage import Stage, in_state, start, with_sdk

pytestmark = pytest.mark.asyncio(loop_scope="package")

VECTORS = Path(__file__).resolve().parents[2] / "protos" / "vectors"

KEPT = """async () => {
    const database = await new Promise((resolve) => {
        const request = indexedDB.open("colonies");
        request.onsuccess = () => resolve(request.result);
    });
    const request = database.transaction("keys").objectStore("keys").getAll();
    await new Promise((resolve) => { request.onsuccess = resolve; });
    const found = [];
    for (const { privateKey } of request.result) {
        for (const format of ["pkcs8", "jwk", "raw"]) {
            found.push(await crypto.subtle.exportKey(format, privateKey).then(() => "read", (error) => error.name));
        }
        found.push(privateKey.extractable);
    }
    return found;
}"""


async def test_a_key_is_kept_and_never_read(stage: Stage) -> None:
    async with stage.context() as context:
        page = await stage.page(context)
        await start(page, "keeps")
        await in_state(page, "waiting_for_approval")
        identity = await page.evaluate("executor.identity")
        assert await page.evaluate(KEPT) == ["InvalidAccessError", "InvalidAccessError", "InvalidAccessError", False]
        await page.reload()
        await with_sdk(page)
        await start(page, "keeps")
        await in_state(page, "waiting_for_approval")
        assert await page.evaluate("executor.identity") == identity
        assert await page.evaluate("sdk.Key.kept('another').then((key) => key.identity)") != identity


async def test_two_tabs_at_once_make_one_key(stage: Stage) -> None:
    async with stage.context() as context:
        page = await stage.page(context)
        made = await page.evaluate(
            "Promise.all(Array.from({ length: 8 }, () => sdk.Key.kept('same').then((key) => key.identity)))"
        )
        assert len(set(made)) == 1


async def test_identities_are_those_of_the_vectors(stage: Stage) -> None:
    vectors = json.loads((VECTORS / "identity_vectors.json").read_text())["vectors"]
    async with stage.context() as context:
        page = await stage.page(context)
        for vector in (one["client"] for one in vectors):
            found = await page.evaluate(
                """async (seed) => {
                    const key = await sdk.Key.fromSeed(Uint8Array.from(seed));
                    return [Array.from(key.publicKey), key.identity];
                }""",
                list(bytes.fromhex(vector["test_private_key"])),
            )
            assert found == [list(bytes.fromhex(vector["public_key_hex"])), vector["identity"]]


async def test_signed_calls_are_those_of_the_vectors(stage: Stage) -> None:
    async with stage.context() as context:
        page = await stage.page(context)
        for vector in client_vectors("call_vectors.json"):
            given = vector["client"]
            if given.get("refused"):
                assert await signed(page, given) == "NotSignableError"
            else:
                assert await signed(page, given) == {"metadata": dict(given["metadata"]), "digest": given["digest"]}


def client_vectors(name: str) -> list[dict[str, Any]]:
    """Those that have a client."""
    return [vector for vector in json.loads((VECTORS / name).read_text())["vectors"] if "client" in vector]


async def signed(page: Any, given: dict[str, Any]) -> Any:
    """What the SDK makes of a call; the name of the error if it refuses."""
    return await page.evaluate(
        """async ({ seed, body, times, ...call }) => {
            const whole = new Uint8Array(body.length * times);
            for (let at = 0; at < times; at++) whole.set(body, at * body.length);
            const key = await sdk.Key.fromSeed(Uint8Array.from(seed));
            return sdk.signCall(key, { ...call, body: whole }).catch((error) => error.name);
        }""",
        {
            "seed": list(bytes.fromhex(given["test_private_key"])),
            "body": list(bytes.fromhex(given["body_hex"])),
            "times": given["body_times"],
            "method": given["method"],
            "audience": given["audience"],
            "timeMs": given["time_ms"],
            "nonce": given["nonce"],
        },
    )
