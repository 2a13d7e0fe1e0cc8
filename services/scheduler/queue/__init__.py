"""The scheduler's part of Redis: lanes, leases, timers, wake-ups. Derived from the tables and rebuilt from them."""
