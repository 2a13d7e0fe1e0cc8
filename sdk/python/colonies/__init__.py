"""Colonies: submit functions and workflows, and run them on executors anywhere.

    from colonies import ColoniesWorkflow, Executor, Function

Names are imported when they are first used, so that a program pays only for the half that it needs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from colonies import errors
    from colonies.client import AsyncClient, Client
    from colonies.errors import ColoniesError, ProcessFailedError, RetryableError, WorkflowError
    from colonies.executor import Context, Executor
    from colonies.function import Function, Gpu
    from colonies.keys import PrivateKey
    from colonies.profile import Profile
    from colonies.retries import Backoff
    from colonies.schedules import FirePolicy, Schedule
    from colonies.tls import Tls
    from colonies.workflow import ColoniesWorkflow

_HOME = {
    "AsyncClient": "colonies.client",
    "Backoff": "colonies.retries",
    "Client": "colonies.client",
    "ColoniesError": "colonies.errors",
    "ColoniesWorkflow": "colonies.workflow",
    "Context": "colonies.executor",
    "Executor": "colonies.executor",
    "FirePolicy": "colonies.schedules",
    "Function": "colonies.function",
    "Gpu": "colonies.function",
    "PrivateKey": "colonies.keys",
    "ProcessFailedError": "colonies.errors",
    "Profile": "colonies.profile",
    "RetryableError": "colonies.errors",
    "Schedule": "colonies.schedules",
    "Tls": "colonies.tls",
    "WorkflowError": "colonies.errors",
}

__all__ = [
    "AsyncClient",
    "Backoff",
    "Client",
    "ColoniesError",
    "ColoniesWorkflow",
    "Context",
    "Executor",
    "FirePolicy",
    "Function",
    "Gpu",
    "PrivateKey",
    "ProcessFailedError",
    "Profile",
    "RetryableError",
    "Schedule",
    "Tls",
    "WorkflowError",
    "__version__",
    "errors",
]


def __getattr__(name: str) -> Any:
    if name == "errors":
        return import_module("colonies.errors")
    if name not in _HOME:
        msg = f"module 'colonies' has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
