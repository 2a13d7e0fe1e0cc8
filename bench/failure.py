"""What ends a run of the benchmarks."""


class BenchError(Exception):
    """The benchmarks cannot run, or the work that was measured was not done. The text is for a person."""
