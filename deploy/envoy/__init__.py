"""The front door's configuration: one template for the local stack, Compose and Kubernetes."""
