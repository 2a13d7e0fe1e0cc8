"""The service processes. They meet over gRPC only: none imports another."""
