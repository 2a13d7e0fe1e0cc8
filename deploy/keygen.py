"""Makes what a deployment by Compose needs and must not be shipped with: keys, passwords, a cluster id.

    python -m deploy.keygen [DIRECTORY]

writes DIRECTORY/keys/*.key and DIRECTORY/.env (default: the folder of compose.yaml), readable by their owner only. Keys
that are there already are kept, and so is an `.env`: run again, it changes nothing.
"""

import os
import secrets
import sys
from pathlib import Path

from colonies.keys import PrivateKey
from deploy.local.files import write_atomically
from deploy.local.settings import SERVICES

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


def main(arguments: list[str]) -> int:
    """Writes the files and says where."""
    written = generate(Path(arguments[0]) if arguments else Path(__file__).parent)
    print(f"{written} and the keys beside it are ready")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
