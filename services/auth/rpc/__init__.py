"""Auth over gRPC: requests to the domain and back."""
