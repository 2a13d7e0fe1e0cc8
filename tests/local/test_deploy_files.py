"""The files that deploy elsewhere: checked without a container engine."""

import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from colonies.keys import PrivateKey
from deploy import keygen
from deploy.envoy import render
from deploy.local.settings import SERVICES

DEPLOY = Path(keygen.__file__).parent
COMPOSE = DEPLOY / "compose.yaml"
SECRETS = ("COLONIES_POSTGRES_PASSWORD", "COLONIES_REDIS_PASSWORD", "COLONIES_SERVER_OWNER", "COLONIES_CLUSTER")


def compose_config(environment: Path) -> subprocess.CompletedProcess[str]:
    """Asks docker-compose to check and resolve the file."""
    program = shutil.which("docker-compose")
    if program is None:
        pytest.skip("docker-compose is not installed")
    command = [program, "--file", str(COMPOSE), "--env-file", str(environment), "config"]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": "/usr/bin:/bin"})


def test_the_committed_front_door_has_not_drifted() -> None:
    assert (DEPLOY / "envoy" / render.COMPOSE_FILE).read_text() == render.compose()
    assert render.main(["--check"]) == 0


def test_compose_is_valid_with_generated_secrets(tmp_path: Path) -> None:
    result = compose_config(keygen.generate(tmp_path))
    assert result.returncode == 0, result.stderr
    for name in (*SERVICES, "envoy", "postgres", "valkey"):
        assert f"\n  {name}:\n" in result.stdout, name


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
