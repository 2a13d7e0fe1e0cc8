"""What the scheduler decides, without I/O: no grpc, protobuf, redis or psycopg here."""
