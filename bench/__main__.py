"""`python -m bench [NAME ...]`."""

import sys

if __name__ == "__main__":
    # Load processes import this module too, and need nothing of the command.
    from bench.command import main

    sys.exit(main())
