"""The metrics that every service has. Each service adds its own beside them."""

from prometheus_client import Counter, Gauge, Histogram

HANDLED = Counter("colonies_rpc_handled_total", "Calls that ended, by status code.", ["method", "code"])
IN_FLIGHT = Gauge("colonies_rpc_in_flight", "Calls in hand; long polls and streams count.", ["method"])
SECONDS = Histogram(
    "colonies_rpc_seconds",
    "Time from a call's arrival to its end, in seconds.",
    ["method"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)

OUTAGES = Counter(
    "colonies_outages_total", "Steps that Postgres or Redis did not answer, or refused for a reason of its own.", ["server"]
)
POSTGRES_OUTAGES = OUTAGES.labels("postgres")
REDIS_OUTAGES = OUTAGES.labels("redis")
LOG_LINES_LOST = Counter(
    "colonies_log_lines_lost_total", "Writes of log lines that failed: the disk is full, or the reader gone."
)
READY = Gauge("colonies_ready", "1 while Postgres answers this process, 0 once it has not for some seconds.")

UNCLAIMED = Counter(
    "colonies_rpc_unclaimed_total", "Calls let in while nonces could not be claimed, as a repeat does no harm.", ["method"]
)
PREFIX_REQUIRED = Counter(
    "colonies_rpc_nonce_prefix_required_total", "Calls to be signed anew, as what was claimed before was lost by Redis."
)
LIMITED = Counter(
    "colonies_rpc_limited_total", "Calls over a limit: of an identity, of a colony, or of open streams.", ["limit"]
)

CERTIFICATE_EXPIRES = Gauge(
    "colonies_tls_certificate_expires_seconds", "Unix time at which this process's TLS certificate expires; 0 without TLS."
)
CERTIFICATES_REFUSED = Counter(
    "colonies_tls_certificates_refused_total", "Changes of certificate files that could not be used; the old stay in use."
)
