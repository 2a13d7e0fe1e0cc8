"""The gateway's metrics. None of them has what a caller wrote as a label: anybody could make up any number of them."""

from prometheus_client import Counter, Gauge, Histogram

ANSWERED = Counter("colonies_gateway_requests_total", "Requests that ended, by kind and status code.", ["kind", "code"])
IN_HAND = Gauge("colonies_gateway_in_hand", "Requests and streams in hand.", ["kind"])
HELD_BYTES = Gauge("colonies_gateway_held_bytes", "Bytes of requests' bodies that are held.")
HELD_ANSWERS = Gauge("colonies_gateway_held_answer_bytes", "Bytes of large answers that are held until they are read.")
FULL = Counter("colonies_gateway_full_total", "Requests that were turned away for lack of room.", ["kind"])
LINES = Counter("colonies_gateway_lines_total", "Lines that streams have brought, without the empty ones.")
CUT_OFF = Counter("colonies_gateway_cut_off_total", "Readers that were cut off because they took nothing for too long.")
GONE = Counter("colonies_gateway_gone_total", "Requests and streams whose client went away before their end.")
SECONDS = Histogram(
    "colonies_gateway_seconds",
    "Time from a request's arrival to its end, in seconds; streams do not count.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
