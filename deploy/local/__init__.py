"""All of Colonies on one machine, with nothing preinstalled: the engine behind `colonies up`, `down` and `status`.

Who starts whom:

    colonies up ─ control.up() ─ python -m deploy.local (the supervisor, detached)
                                   ├── postgres, valkey   from wheels, loopback only, never as root
                                   ├── envoy              the one address; told of replicas by files
                                   └── services           auth, registry, scheduler, cron; and the gateway

One lock file per data directory makes sure that there is one supervisor. It is held for as long as the supervisor
lives, so that a kill -9 releases it. Children of a killed supervisor are found again by their working directory
(every child has a private one) and are ended before new ones start.

Callers use `deploy.local.control`. Importing that module needs nothing but the standard library and the SDK, so that a
machine without the `server` extra gets a sentence and not an ImportError.
"""
