"""The files that deploy elsewhere: checked without a container engine."""

import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography import x509

from colonies.keys import PrivateKey
from colonies.tls import Credentials, Tls
from deploy import keygen
from deploy.envoy import render
from deploy.local.settings import GATEWAY, PROCESSES, SERVICES

DEPLOY = Path(keygen.__file__).parent
COMPOSE = DEPLOY / "compose.yaml"
SECRETS = ("COLONIES_POSTGRES_PASSWORD", "COLONIES_REDIS_PASSWORD", "COLONIES_SERVER_OWNER", "COLONIES_CLUSTER")


def compose_config(environment: Path, *more: Path) -> subprocess.CompletedProcess[str]:
    """Asks docker-compose to check and resolve the file, with others on top of it."""
    program = shutil.which("docker-compose")
    if program is None:
        pytest.skip("docker-compose is not installed")
    files = [part for file in (COMPOSE, *more) for part in ("--file", str(file))]
    command = [program, *files, "--env-file", str(environment), "config"]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": "/usr/bin:/bin"})


def test_the_committed_front_door_has_not_drifted() -> None:
    for name, text in render.committed().items():
        assert (DEPLOY / "envoy" / name).read_text() == text
    assert render.main(["--check"]) == 0


def test_compose_is_valid_with_generated_secrets(tmp_path: Path) -> None:
    result = compose_config(keygen.generate(tmp_path))
    assert result.returncode == 0, result.stderr
    for name in (*PROCESSES, "envoy", "postgres", "valkey"):
        assert f"\n  {name}:\n" in result.stdout, name


def test_compose_with_tls_is_valid_and_speaks_no_plaintext(tmp_path: Path) -> None:
    result = compose_config(keygen.generate(tmp_path), DEPLOY / "compose.tls.yaml")
    assert result.returncode == 0, result.stderr
    for service in PROCESSES:
        assert f"deploy/tls/{service}:/run/tls:ro" in result.stdout
    resolved = result.stdout.replace("'", '"')
    assert resolved.count('COLONIES_TLS_REQUIRE_CLIENT_CERT: "true"') == len(PROCESSES)
    assert resolved.count('COLONIES_ALLOW_PLAINTEXT: "false"') == len(PROCESSES)
    assert "compose.envoy.yaml" not in result.stdout
    assert "compose.tls.envoy.yaml:/etc/envoy/envoy.yaml:ro" in result.stdout


def test_keygen_gives_each_process_a_certificate_of_its_own(tmp_path: Path) -> None:
    ca_file = keygen.certify(tmp_path, ["colonies.example"])
    authority = x509.load_pem_x509_certificate(ca_file.read_bytes())
    serials = set()
    for _ in range(2):
        for name in ("front-door", *PROCESSES):
            folder = tmp_path / "tls" / name
            tls = Tls(*(str(folder / file) for file in ("ca.crt", "tls.crt", "tls.key")))
            assert (folder / "ca.crt").read_bytes() == ca_file.read_bytes()
            names = Credentials.read(tls).names
            assert ("colonies.example" in names and "envoy" in names) == (name == "front-door")
            assert (name in names) == (name in PROCESSES)
            certificate = x509.load_pem_x509_certificate((folder / "tls.crt").read_bytes())
            certificate.verify_directly_issued_by(authority)
            serials.add(certificate.serial_number)
            assert {stat.S_IMODE(path.stat().st_mode) for path in (folder / "tls.key", tmp_path / "keys" / "ca.key")} == {0o600}
        assert keygen.certify(tmp_path, ["colonies.example"]) == ca_file
    assert len(serials) == 2 * (1 + len(PROCESSES))


def test_compose_refuses_to_start_without_secrets(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    result = compose_config(tmp_path / "empty")
    assert result.returncode != 0
    assert "python -m deploy.keygen" in result.stderr


def test_no_secret_has_a_default() -> None:
    text = COMPOSE.read_text()
    for name in SECRETS:
        assert f"${{{name}:?" in text
        assert f"${{{name}:-" not in text
        assert f"${{{name}}}" not in text


def test_every_service_is_deployed_and_routed() -> None:
    compose, front_door = COMPOSE.read_text(), (DEPLOY / "envoy" / render.COMPOSE_FILE).read_text()
    for service in SERVICES:
        assert f"command: [services.{service}]" in compose
        assert f"./keys/service-{service}.key:/run/secrets/service.key:ro" in compose
        assert f"{{prefix: /colonies.{service}.v1.}}" in front_door
        assert f"address: {service}, port_value: {render.COMPOSE_SERVICE_PORT}" in front_door
    assert f'COLONIES_LISTEN: "0.0.0.0:{render.COMPOSE_SERVICE_PORT}"' in compose
    assert f"command: [services.{GATEWAY}]" in compose
    assert f"address: {GATEWAY}, port_value: {render.COMPOSE_SERVICE_PORT}" in front_door


def test_the_gateway_is_given_no_secret(tmp_path: Path) -> None:
    result = compose_config(keygen.generate(tmp_path))
    _before, found, after = result.stdout.partition(f"\n  {GATEWAY}:\n")
    assert found
    gateway = re.split(r"\n  \w", after)[0]
    assert "COLONIES_FRONT_DOOR_ADDRESS: envoy:50080" in gateway
    for word in ("POSTGRES", "REDIS", "KEY", "secrets", "OWNER", "postgres", "valkey"):
        assert word not in gateway


def test_keygen_makes_private_files_and_changes_nothing_later(tmp_path: Path) -> None:
    environment = keygen.generate(tmp_path)
    before = environment.read_text()
    keys = sorted((tmp_path / "keys").glob("*.key"))
    assert len(keys) == 6
    for path in (environment, *keys):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert f"cron={PrivateKey.load(tmp_path / 'keys' / 'service-cron.key').identity}" in before
    assert keygen.generate(tmp_path).read_text() == before


def test_the_image_runs_without_root_and_copies_no_keys() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    assert [line for line in lines if line.startswith("USER")] == ["USER 10001:10001"]
    assert 'ENTRYPOINT ["/usr/local/bin/python", "-m"]' in lines
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert ignored.index("deploy/keys") > ignored.index("!deploy")
    assert ignored.index("deploy/.env") > ignored.index("!deploy")
