"""The cron service over real servers."""
