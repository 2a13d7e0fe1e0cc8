"""The registry over gRPC: requests to the domain and back, and its own calls to auth."""
