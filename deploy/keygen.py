"""Makes what a deployment by Compose needs and must not be shipped with: keys, passwords, a cluster id.

    python -m deploy.keygen [DIRECTORY]
    python -m deploy.keygen --tls [HOST...]

The first writes DIRECTORY/keys/*.key and DIRECTORY/.env (default: the folder of compose.yaml), readable by their owner
only. Keys that are there already are kept, and so is an `.env`: run again, it changes nothing.

The second gives the processes of compose.tls.yaml certificates of a private authority, in the folder of compose.yaml:
tls/NAME/tls.crt, tls.key and ca.crt. The authority's own key is keys/ca.key. HOST is a name or address by which clients reach
the front door from elsewhere. Run again, within 90 days, it renews them: running processes take them up by themselves.
"""

import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

from colonies.keys import PrivateKey
from deploy.local.certificates import FRONT_DOOR, HERE, Certificates
from deploy.local.files import write_atomically
from deploy.local.settings import PROCESSES, SERVICES

_NAMES = ("server-owner", "colony-owner", *(f"service-{service}" for service in SERVICES))


def generate(directory: Path) -> Path:
    """Makes what is missing under a directory, and returns the `.env` file."""
    keys = directory / "keys"
    keys.mkdir(parents=True, exist_ok=True)
    keys.chmod(0o700)
    identities = {name: PrivateKey.load_or_create(keys / f"{name}.key").identity for name in _NAMES}
    environment = directory / ".env"
    if not environment.exists():
        values = {
            "COLONIES_CLUSTER": f"compose-{secrets.token_hex(4)}",
            "COLONIES_SERVER_OWNER": identities["server-owner"],
            "COLONIES_SERVICE_IDENTITIES": ",".join(f"{each}={identities[f'service-{each}']}" for each in SERVICES),
            "COLONIES_POSTGRES_PASSWORD": secrets.token_hex(24),
            "COLONIES_REDIS_PASSWORD": secrets.token_hex(24),
            # Key files open to their owner only; the containers must be that owner to read them.
            "COLONIES_UID": str(os.getuid()),
            "COLONIES_GID": str(os.getgid()),
        }
        write_atomically(environment, "".join(f"{name}={value}\n" for name, value in values.items()))
    return environment


def certify(directory: Path, hosts: Sequence[str]) -> Path:
    """Gives every process of a deployment a new certificate, and returns the file of the authority that clients trust."""
    (directory / "keys").mkdir(exist_ok=True, mode=0o700)
    authority = Certificates(directory).authority()
    for name in (FRONT_DOOR, *PROCESSES):
        # The service's name is where the front door finds it, and "envoy" where services find the front door.
        issued = authority.issue(name, [*(hosts if name == FRONT_DOOR else ()), "envoy" if name == FRONT_DOOR else name, *HERE])
        folder = directory / "tls" / name
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        write_atomically(folder / "ca.crt", authority.pem.decode(), mode=0o644)
        write_atomically(folder / "tls.key", issued.key.decode())
        write_atomically(folder / "tls.crt", issued.certificate.decode(), mode=0o644)
    return directory / "certificates" / "ca.crt"


def main(arguments: list[str]) -> int:
    """Writes the files and says where."""
    if "--tls" in arguments:
        hosts = [argument for argument in arguments if argument != "--tls"]
        print(f"certificates are ready; clients trust {certify(Path(__file__).parent, hosts)}")
        return 0
    written = generate(Path(arguments[0]) if arguments else Path(__file__).parent)
    print(f"{written} and the keys beside it are ready")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
