"""Who may call what, in words, from the policy that the services go by."""

import tomllib
from pathlib import Path

WORDS = {
    "anyone": "anyone who signs",
    "server_owner": "the server owner",
    "colony_owner": "the colony's owner",
    "user": "users of the colony",
    "executor": "approved executors of the colony",
    "initiator": "members, for what was submitted on their account",
}


def callers(path: Path) -> dict[str, list[str]]:
    """For each method ("package.Service.Method") that others than the servers themselves may call: the roles that may."""
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    found: dict[str, list[str]] = {}
    for service, methods in tables.items():
        if not service.startswith("colonies."):
            continue
        for method, roles in methods.items():
            public = [role for role in roles if not role.startswith("service")]
            if public:
                found[f"{service}.{method}"] = public
    return found


def in_words(roles: list[str]) -> str:
    """Roles as a sentence's end."""
    words = [WORDS[role] for role in roles]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
