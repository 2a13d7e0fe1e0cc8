"""What auth knows and decides, apart from gRPC and Postgres."""
