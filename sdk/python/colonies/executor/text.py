"""Texts that fit their fields."""


def bounded(text: str, max_bytes: int) -> str:
    """The text, cut to at most this many bytes of UTF-8, and without what UTF-8 cannot carry."""
    data = text.encode("utf-8", "replace")
    if len(data) <= max_bytes:
        return data.decode()
    mark = " ... (cut)"
    return data[: max_bytes - len(mark)].decode("utf-8", "ignore") + mark


def bounded_end(text: str, max_bytes: int) -> str:
    """The last of a text, for what ends with the important: at most this many bytes of UTF-8."""
    data = text.encode("utf-8", "replace")
    if len(data) <= max_bytes:
        return data.decode()
    mark = "(cut) ... "
    return mark + data[-(max_bytes - len(mark)) :].decode("utf-8", "ignore")
