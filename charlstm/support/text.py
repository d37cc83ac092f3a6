"""Text that a terminal or a page can show safely."""


def printable(text: str) -> str:
    """Replaces control characters, which a terminal would obey, with U+FFFD; newlines and tabs stay."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)
