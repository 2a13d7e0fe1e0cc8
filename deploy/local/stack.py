"""One local stack: from settings to a plan, and the run of it under its lock."""

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import colonies
import deploy
from colonies.tls import Tls
from deploy.envoy.render import check_origin
from deploy.local.accounts import embedded_account
from deploy.local.certificates import FRONT_DOOR, SUPERVISOR, Certificates
from deploy.local.envoy import EnvoyFrontDoor
from deploy.local.errors import StackError, describe_os_error
from deploy.local.layout import SERVER_OWNER_KEY, Layout
from deploy.local.ports import check_front_door, is_loopback
from deploy.local.postgres import Postgres
from deploy.local.processes import ProcessId
from deploy.local.server import Child
from deploy.local.service import Service
from deploy.local.settings import GATEWAY, PROCESSES, SERVICES, StackSettings
from deploy.local.state import ProcessStatus, StackState
from deploy.local.supervisor import StackPlan, Supervisor
from deploy.local.valkey import Valkey

# The caller's own directory and TLS are not the stack's.
_NOT_INHERITED = ("COLONIES_DATA_DIR", "COLONIES_TLS", "COLONIES_ALLOW_PLAINTEXT")
# What a caller may have set for services, and the gateway must not see.
_FOR_SERVICES = ("COLONIES_POSTGRES_", "COLONIES_REDIS_", "PG")

OnState = Callable[[StackState], None]


class Stack:
    """A stack in its data directory. `run` is the supervisor's whole life; the caller holds the lock."""

    def __init__(self, settings: StackSettings, on_state: OnState = lambda _: None) -> None:
        self._settings = settings
        self._layout = Layout(settings.data_dir.absolute())
        self._on_state = on_state
        self._state = self._first_state()

    def run(self, stopping: threading.Event) -> None:
        """Brings the stack up, keeps it up until `stopping` is set, and ends it in good order.

        Raises:
            StackError: it could not be brought up. The state says so too.
        """
        try:
            self._layout.prepare()
            self._check_replicas()
            self._check_origins()
            self._report("starting", [])
            plan = self._plan()
            Supervisor(plan, stopping, self._report).run(self._settings.ready_seconds)
        except StackError as error:
            self._fail(error)
            raise
        except OSError as error:
            described = describe_os_error(error, self._layout.root)
            self._fail(described)
            raise described from error

    def _plan(self) -> StackPlan:
        settings, layout = self._settings, self._layout
        identities = layout.identities()
        certificates = self._certificates()
        ca_file = str(certificates.ca_file) if certificates else ""
        self._state = replace(self._state, cluster_id=layout.cluster_id(), identities=identities, ca_file=ca_file)
        foundations: list[Child] = []
        postgres_url, redis_url = settings.postgres_url, settings.redis_url
        postgres = valkey = None
        if postgres_url is None:
            postgres = Postgres(layout.root / "postgres", log=layout.log("postgres"))
            foundations.append(postgres)
        if redis_url is None:
            valkey = Valkey(layout.root / "valkey", log=layout.log("valkey"))
            foundations.append(valkey)
        front_door = EnvoyFrontDoor(
            layout.root / "envoy",
            host=settings.host,
            port=settings.port,
            log=layout.log("envoy"),
            tls=certificates.tls(FRONT_DOOR) if certificates else None,
            origins=settings.allowed_origins,
        )
        # An Envoy that a crashed run left behind is ended before its port is looked at.
        front_door.end_leftovers()
        check_front_door(settings.host, settings.port)

        def environment_of(process: str) -> Callable[[], Mapping[str, str]]:
            def environment() -> Mapping[str, str]:
                # Processes meet through the front door, where replicas come and go without anybody being told.
                way = _dialable(front_door.address)
                tls = _tls_environment(certificates.tls(process)) if certificates else {}
                if process == GATEWAY:
                    told = {"COLONIES_FRONT_DOOR_ADDRESS": way, "COLONIES_CLUSTER": self._state.cluster_id}
                    return {**_without_secrets(_inherited_environment()), **told, **tls}
                return {
                    **_inherited_environment(),
                    "COLONIES_CLUSTER": self._state.cluster_id,
                    "COLONIES_POSTGRES_URL": postgres_url or (postgres.url() if postgres else ""),
                    "COLONIES_REDIS_URL": redis_url or (valkey.url() if valkey else ""),
                    "COLONIES_SERVER_OWNER": identities[SERVER_OWNER_KEY],
                    "COLONIES_SERVICE_KEY_FILE": str(layout.key(f"service-{process}")),
                    "COLONIES_SERVICE_IDENTITIES": ",".join(f"{each}={identities[f'service-{each}']}" for each in SERVICES),
                    **{f"COLONIES_{each}_ADDRESS": way for each in ("AUTH", "REGISTRY", "SCHEDULER")},
                    **tls,
                }

            return environment

        services = [
            self._service(process, number, environment_of(process), certificates.tls(SUPERVISOR) if certificates else None)
            for process in PROCESSES
            for number in range(1, settings.replicas.get(process, 1) + 1)
        ]
        return StackPlan(
            foundations,
            front_door,
            services,
            told=lambda: [child.port for child in foundations],
            upkeep=lambda: _keep_fresh(certificates, settings.host),
        )

    def _certificates(self) -> Certificates | None:
        """The certificates of a stack that speaks TLS, made or renewed where that is needed.

        Raises:
            StackError: it would be plaintext for other machines, and nobody has asked for that.
        """
        settings = self._settings
        if self._layout.tls(settings.tls):
            certificates = Certificates(self._layout.root, account=embedded_account())
            certificates.ensure(settings.host)
            return certificates
        if not is_loopback(settings.host) and not settings.allow_plaintext:
            msg = (
                f"plaintext on {settings.host} could be read on the way: use colonies up --tls, or --allow-plaintext if that "
                "network is trusted"
            )
            raise StackError(msg)
        return None

    def _service(self, service: str, number: int, environment: Callable[[], Mapping[str, str]], tls: Tls | None) -> Service:
        name = service if number == 1 else f"{service}-{number}"
        command = [part.format(name=service) for part in self._settings.service_command]
        return Service(
            service,
            number,
            command,
            directory=self._layout.run(name),
            log=self._layout.log(name),
            environment=environment,
            tls=tls,
        )

    def _check_replicas(self) -> None:
        for service, count in self._settings.replicas.items():
            if service not in PROCESSES:
                msg = f"there is no service {service!r}; the services are {', '.join(PROCESSES)}"
                raise StackError(msg)
            if not 1 <= count <= 64:
                msg = f"{service} cannot have {count} replicas: choose 1 to 64"
                raise StackError(msg)

    def _check_origins(self) -> None:
        for origin in self._settings.allowed_origins:
            try:
                check_origin(origin)
            except ValueError as error:
                raise StackError(str(error)) from error

    def _first_state(self) -> StackState:
        identity = ProcessId.of(os.getpid())
        return StackState(
            pid=os.getpid(),
            began=identity.started if identity else 0,
            phase="starting",
            address=f"{self._settings.host}:{self._settings.port}",
            cluster_id="",
            data_dir=str(self._layout.root),
            started_at=time.time(),
            identities={},
        )

    def _report(self, phase: str, processes: list[ProcessStatus]) -> None:
        self._state = replace(self._state, phase=phase, processes=tuple(processes))
        self._save()

    def _fail(self, error: StackError) -> None:
        self._state = replace(
            self._state,
            phase="failed",
            error=error.message,
            error_log=str(error.log or ""),
            error_log_tail=error.log_tail,
        )
        self._save()

    def _save(self) -> None:
        self._on_state(self._state)
        try:
            self._state.save(self._layout.state)
        except OSError:
            # A full disk, or a data directory that was taken away, must not end the processes it holds.
            return


def _dialable(address: str) -> str:
    """An address to connect to, for one to listen on."""
    host, _, port = address.rpartition(":")
    return f"127.0.0.1:{port}" if host in {"0.0.0.0", "::", "[::]"} else address  # noqa: S104


def _tls_environment(tls: Tls) -> dict[str, str]:
    """TLS for a service: it takes only peers with a certificate of the stack's authority."""
    return {
        "COLONIES_TLS_CA_FILE": tls.ca_file,
        "COLONIES_TLS_CERT_FILE": tls.cert_file,
        "COLONIES_TLS_KEY_FILE": tls.cert_key_file,
        "COLONIES_TLS_REQUIRE_CLIENT_CERT": "true",
    }


def _keep_fresh(certificates: Certificates | None, host: str) -> None:
    """Renews certificates of a stack that has been up for so long that they wear out."""
    try:
        if certificates is not None and certificates.ensure(host):
            print("renewed the certificates", file=sys.stderr)
    except (StackError, OSError) as error:
        # They are still good for weeks, and this comes again.
        print(f"cannot renew the certificates: {error}", file=sys.stderr)


def _inherited_environment() -> dict[str, str]:
    """The caller's environment, without the caller's own keys, and with the way to the packages of this checkout."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not (name.startswith("COLONIES_") and ("KEY" in name or name.startswith(_NOT_INHERITED)))
    }
    # gRPC's own lines about each peer that speaks no TLS are not JSON, and anybody who connects could fill the log with them.
    return {"GRPC_VERBOSITY": "ERROR", **kept, **import_path()}


def _without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment for who is not trusted: the addresses of databases have their passwords in them."""
    return {name: value for name, value in environment.items() if not name.startswith(_FOR_SERVICES)}


def import_path() -> dict[str, str]:
    """PYTHONPATH for children that run elsewhere: they must find what this process found, installed or not."""
    roots = [str(Path(str(package.__file__)).resolve().parents[1]) for package in (deploy, colonies)]
    needed = [root for root in dict.fromkeys(roots) if not root.endswith(("site-packages", "dist-packages"))]
    inherited = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([*needed, *([inherited] if inherited else [])])
    return {"PYTHONPATH": path} if path else {}
