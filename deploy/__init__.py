"""Ways to run Colonies: on one machine (`deploy.local`), with Compose, and behind Envoy everywhere (`deploy.envoy`)."""
