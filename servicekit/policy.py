"""The policy: which roles may call which RPC. It is data, in policy.toml; what does not stand there is denied."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

from servicekit.caller import PRINCIPAL_ROLES, Role

# Whoever is a member of the colony may call; what is acted on must be the caller's own.
INITIATOR = "initiator"


@dataclass(frozen=True, slots=True)
class Rule:
    """Who may call one RPC: roles, single services, and initiators of what it acts on."""

    roles: frozenset[Role]
    services: frozenset[str]
    initiators: bool

    @property
    def knows_principals(self) -> bool:
        """Whether the role of the server owner or of some service could let a caller in."""
        return bool(self.services or self.roles & PRINCIPAL_ROLES)

    def grants_role(self, role: Role, service: str) -> bool:
        """Whether the role alone lets the caller in."""
        return Role.ANYONE in self.roles or role in self.roles or (role is Role.SERVICE and service in self.services)


@dataclass(frozen=True, slots=True)
class Policy:
    """Rules by full method name, services that carry no data of a tenant and are open to probes, and what is safe to repeat."""

    rules: Mapping[str, Rule]
    public_services: frozenset[str]
    # Full method names; the file says why.
    replay_safe: frozenset[str] = frozenset()

    @classmethod
    def load(cls) -> "Policy":
        """Reads policy.toml.

        Raises:
            ValueError: it uses a word that is no role, or calls a method safe to repeat that has no rule.
        """
        document = tomllib.loads(resources.files("servicekit").joinpath("policy.toml").read_text(encoding="utf-8"))
        public = frozenset(document.pop("public")["services"])
        safe = document.pop("replay_safe", {})
        rules = {f"/{service}/{method}": _rule(words) for service, table in document.items() for method, words in table.items()}
        replay_safe = frozenset(f"/{service}/{method}" for service, methods in safe.items() for method in methods)
        if unknown := replay_safe - set(rules):
            msg = f"replay_safe names methods without a rule: {sorted(unknown)}"
            raise ValueError(msg)
        return cls(rules, public, replay_safe)


def _rule(words: list[str]) -> Rule:
    plain = [word for word in words if ":" not in word and word != INITIATOR]
    services = [word.removeprefix("service:") for word in words if word.startswith("service:")]
    return Rule(frozenset(Role(word) for word in plain), frozenset(services), INITIATOR in words)
