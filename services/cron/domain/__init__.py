"""What a cron is and when it fires. Knows neither gRPC nor Postgres."""
