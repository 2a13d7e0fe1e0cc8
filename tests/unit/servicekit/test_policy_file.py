"""The policy as it is read, and what its words mean."""

import pytest

from servicekit.caller import Role
from servicekit.policy import Policy, Rule


@pytest.fixture(scope="module")
def policy() -> Policy:
    """The policy file."""
    return Policy.load()


def rule(policy: Policy, service: str, method: str) -> Rule:
    """The rule for one RPC."""
    return policy.rules[f"/colonies.{service}.v1.{service.capitalize()}Service/{method}"]


def test_words(policy: Policy) -> None:
    anyone = rule(policy, "auth", "GetServerInfo")
    assert all(anyone.grants_role(role, "") for role in Role)
    put = rule(policy, "auth", "PutExecutor")
    assert put.grants_role(Role.SERVICE, "registry")
    assert not put.grants_role(Role.SERVICE, "scheduler")
    assert not put.grants_role(Role.USER, "registry")
    assert not any(put.grants_role(role, "") for role in Role)
    remove = rule(policy, "registry", "RemoveExecutor")
    assert remove.initiators
    assert remove.grants_role(Role.COLONY_OWNER, "")
    assert not remove.grants_role(Role.EXECUTOR, "")
    resolve = rule(policy, "auth", "ResolveMember")
    assert resolve.grants_role(Role.SERVICE, "anything")
    assert not resolve.grants_role(Role.SERVER_OWNER, "")


def test_only_probes_are_public(policy: Policy) -> None:
    assert policy.public_services == {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}


def test_only_submits_and_what_they_need_are_safe_to_repeat(policy: Policy) -> None:
    service = "/colonies.scheduler.v1.SchedulerService"
    resolve = "/colonies.auth.v1.AuthService/ResolveMember"
    submits = {f"{service}/{method}" for method in ("SubmitProcesses", "SubmitWorkflow", "SubmitWorkflows")}
    assert policy.replay_safe == {*submits, resolve}


def read_from(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the policy read this text."""

    class File:
        def joinpath(self, _name: str) -> "File":
            return self

        def read_text(self, encoding: str) -> str:
            assert encoding == "utf-8"
            return text

    monkeypatch.setattr("servicekit.policy.resources.files", lambda _package: File())


def test_what_is_safe_to_repeat_has_a_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    text = '[public]\nservices = []\n[replay_safe]\n"x.Service" = ["Put"]\n["x.Service"]\nGet = ["user"]\n'
    read_from(text, monkeypatch)
    with pytest.raises(ValueError, match=r"/x\.Service/Put"):
        Policy.load()


def test_a_word_that_is_no_role_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    read_from('[public]\nservices = []\n["x.Service"]\nGet = ["everyone"]\n', monkeypatch)
    with pytest.raises(ValueError, match="everyone"):
        Policy.load()
