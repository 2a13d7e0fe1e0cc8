"""What the registry knows and decides, apart from gRPC and Postgres."""
