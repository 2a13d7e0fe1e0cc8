"""The door to `deploy.local`, which comes with the server part and not with the SDK.

The SDK imports nothing of the server: the module is looked up when it is needed, and its absence is one clear line.
"""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from colonies.cli.failure import CliError, ExitCode

NEEDS_SERVER = "this needs the server part: pip install 'colonies[server]'"
OnProgress = Callable[[str], None]


class LocalStack:
    """The stack of one data directory.

    Everything here raises CliError: the server part is missing, or the stack cannot do what was asked.
    """

    def __init__(self, data_dir: Path | None = None) -> None:
        try:
            self._control = importlib.import_module("deploy.local.control")
        except ImportError as error:
            raise CliError(NEEDS_SERVER, ExitCode.FAILED) from error
        self.data_dir: Path = (data_dir or self._control.default_data_dir()).expanduser().absolute()

    def up(self, *, detach: bool, on_progress: OnProgress, **settings: Any) -> Any:
        """Brings the stack up; gives its state. `settings` are those of deploy.local.settings.StackSettings."""
        chosen = {name: value for name, value in settings.items() if value is not None}
        with self._errors():
            return self._control.up(
                self._control.StackSettings(data_dir=self.data_dir, **chosen), detach=detach, on_progress=on_progress
            )

    def down(self, *, on_progress: OnProgress) -> bool:
        """Ends the stack; False when none ran."""
        with self._errors():
            return bool(self._control.down(self.data_dir, on_progress=on_progress))

    def status(self) -> Any:
        """What runs: a deploy.local.state.StackStatus."""
        with self._errors():
            return self._control.status(self.data_dir)

    def renew_certificates(self) -> None:
        """Gives the stack new certificates."""
        with self._errors():
            self._control.renew_certificates(self.data_dir)

    def certificate_expiries(self) -> dict[str, datetime]:
        """When its certificates expire, by name."""
        with self._errors():
            return dict(self._control.certificate_expiries(self.data_dir))

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except self._control.StackError as error:
            details = [f"log: {error.log}"] if error.log else []
            details += [line for line in error.log_tail.splitlines() if line.strip()]
            raise CliError(error.message, ExitCode.FAILED, details=details) from error
