"""CronService over gRPC: requests to domain calls, results to responses."""
