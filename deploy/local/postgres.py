"""A real Postgres from a wheel: checksummed, durable, password-protected, on loopback only."""

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

import psycopg
from psycopg import sql

from deploy.local import binaries
from deploy.local.accounts import private_directory
from deploy.local.errors import StackError, disk_full
from deploy.local.files import secret, write_atomically
from deploy.local.ports import LOOPBACK, kept_port
from deploy.local.server import EmbeddedServer

ROLE = "colonies"
DATABASE = "colonies"
_SUPERUSER = "postgres"
_CONNECT_SECONDS = 2

_SETTINGS = """\
# Written at every start: changes made here are lost.
listen_addresses = '{address}'
port = {port}
unix_socket_directories = ''
password_encryption = 'scram-sha-256'

max_connections = 200
shared_buffers = 256MB
# Queue tables are updated all the time: vacuum little and often, not seldom and much.
autovacuum_naptime = 10s
autovacuum_vacuum_scale_factor = 0.05
# Statements are short; compiling them costs more than it saves.
jit = off
random_page_cost = 1.1

# Little log to replay, so that a crash costs a second and not a minute.
checkpoint_timeout = 5min
max_wal_size = 1GB
wal_compression = on
fsync = {durable}
synchronous_commit = {durable}
full_page_writes = {durable}

timezone = 'UTC'
log_timezone = 'UTC'
log_checkpoints = off
log_line_prefix = '%m [%p] '
"""


class Postgres(EmbeddedServer):
    """One Postgres cluster in a directory, holding the database `colonies` and a role of that name.

    The role owns the database and may create others, but is no superuser: what a service can be talked into doing ends
    at its own data. `durable=False` switches syncing to disk off, for quick tests only.
    """

    name: ClassVar[str] = "postgres"
    program: ClassVar[str] = "postgres"
    # Fast shutdown. SIGTERM would wait for every client to leave.
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT

    def __init__(self, directory: Path, *, log: Path | None = None, durable: bool = True) -> None:
        super().__init__(directory, log=log)
        self._durable = durable

    @property
    def home(self) -> Path:
        """The data directory."""
        return self.directory / "data"

    def url(self, database: str = DATABASE) -> str:
        """The address of a database, password included, for the role `colonies`."""
        return self._url(ROLE, secret(self.directory / "password"), database)

    def superuser_url(self, database: str = DATABASE) -> str:
        """The same for the superuser: for backups and fault tests."""
        return self._url(_SUPERUSER, secret(self.directory / "superuser-password"), database)

    def healthy(self) -> bool:
        """Whether it accepts connections and answers a query."""
        try:
            with self._connect() as connection:
                connection.execute("SELECT 1")
        except psycopg.Error:
            return False
        return True

    def _url(self, role: str, password: str, database: str) -> str:
        if self._port is None:
            msg = "postgres has not been started"
            raise StackError(msg)
        return f"postgresql://{role}:{password}@{LOOPBACK}:{self._port}/{quote(database, safe='')}"

    def _connect(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(self.superuser_url("postgres"), connect_timeout=_CONNECT_SECONDS, autocommit=True)

    def _prepare(self) -> Sequence[str | Path]:
        server = binaries.binary(binaries.POSTGRES)
        if not self.home.exists():
            self._create_cluster(server.with_name("initdb"))
        # Nothing of ours works in the directory by now (leftovers were ended), so the pid in this file is stale, or has
        # become the pid of a stranger, which would keep Postgres from starting.
        (self.home / "postmaster.pid").unlink(missing_ok=True)
        self._port = kept_port(self.directory / "port")
        settings = _SETTINGS.format(address=LOOPBACK, port=self._port, durable="on" if self._durable else "off")
        write_atomically(self.home / "postgresql.conf", settings, owner=self.account)
        return [server, "-D", self.home]

    def _create_cluster(self, initdb: Path) -> None:
        """Creates the cluster beside its place and moves it there when whole: a first start cut short is made again."""
        scratch = self.directory / "data.new"
        shutil.rmtree(scratch, ignore_errors=True)
        private_directory(scratch, self.account)
        password_file = self.directory / "superuser-password.initdb"
        write_atomically(password_file, secret(self.directory / "superuser-password") + "\n", owner=self.account)
        command = [initdb, "-D", scratch, "-U", _SUPERUSER, "--auth=scram-sha-256", f"--pwfile={password_file}"]
        # The built-in locale is the same on every machine, whatever locales it has.
        command += ["--data-checksums", "--encoding=UTF8", "--locale=C"]
        command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        if not self._durable:
            command.append("--no-sync")
        try:
            result = subprocess.run(
                [str(part) for part in command],
                cwd=scratch,
                env=dict(self._environment()),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                user=self.account.uid if self.account else None,
                group=self.account.gid if self.account else None,
                extra_groups=[] if self.account else None,
                start_new_session=True,
                check=False,
            )
        finally:
            password_file.unlink(missing_ok=True)
        output = result.stdout.decode(errors="replace")
        if result.returncode != 0:
            shutil.rmtree(scratch, ignore_errors=True)
            if "No space left on device" in output:
                raise disk_full(self.directory)
            msg = f"postgres could not create its data in {self.directory} (initdb ended with {result.returncode})"
            raise StackError(msg, log_tail="\n".join(output.splitlines()[-15:]))
        scratch.rename(self.home)
        self._sync_directory()

    def _sync_directory(self) -> None:
        descriptor = os.open(self.directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _settle(self) -> None:
        """Makes the role and the database that are not there yet: on first start, or after one that was cut short."""
        password = secret(self.directory / "password").encode()
        with self._connect() as connection:
            if connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [ROLE]).fetchone() is None:
                # Sent as a verifier: the password itself appears in no statement and in no log.
                verifier = connection.pgconn.encrypt_password(password, ROLE.encode(), b"scram-sha-256").decode()
                connection.execute(
                    sql.SQL("CREATE ROLE {} LOGIN CREATEDB PASSWORD {}").format(sql.Identifier(ROLE), sql.Literal(verifier))
                )
            if connection.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE]).fetchone() is None:
                connection.execute(
                    sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(DATABASE), sql.Identifier(ROLE))
                )
