"""What may be in valkey when everything is done. Anything else was forgotten there by somebody, and would stay for ever."""

import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

import redis

# Keys, with the reason why each may be there.
ALLOWED: Mapping[str, str] = {
    r"colonies:gate:\{gate\}:(nonce|identity|colony):.*": "claimed nonces and rates; each expires by itself",
    r"colonies:gate:\{gate\}:memory": "since when nonces are remembered",
    r"colonies:queue:(epoch|rebuilding|ticked|timed)": "the upkeep's own notes, a few for all colonies",
    r"colonies:queue:\{replicas\}:(lost-at|watermarks)": "the living, and those that died a moment ago",
    r"colonies:\{cron\}:loaded:(crons|generators)": "when a replica last loaded what is due soon, one for all",
    r"colonies:\{dev\}:timers": "looked into below",
}


def leftovers(url: str) -> list[str]:
    """The keys and timers that should not be there."""
    with redis.Redis.from_url(url, decode_responses=True) as client:
        return [*_keys(client), *_timers(client)]


def _keys(client: "redis.Redis") -> Iterator[str]:
    for key in client.scan_iter(match="colonies:*", count=1_000):
        reason = next((why for pattern, why in ALLOWED.items() if re.fullmatch(pattern, key)), None)
        if reason is None:
            yield f"key {key}"
        elif key.startswith("colonies:gate:") and not key.endswith(":memory") and client.ttl(key) == -1:
            yield f"key {key} without an expiry"


def _timers(client: "redis.Redis") -> Iterator[str]:
    """Whatever was due was taken care of, and what is over is not due any more."""
    now = time.time()
    timers: Any = client.zrange("colonies:{dev}:timers", 0, -1, withscores=True)
    for member, score in timers:
        yield f"timer {member} due in {score / 1000 - now:.1f} s"
