"""How an error quotes a value out of a stranger's file: short, printable and on one line, whatever the value is."""

from collections.abc import Sequence

LENGTH = 120


def shown(value: object) -> str:
    """Return a value as Python writes it, cut to LENGTH; only its kind where even that fails."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of too many digits, a list too deep
        text = f"a huge {type(value).__name__}"
    return printable(text if len(text) <= LENGTH else text[:LENGTH] + "…")


def printable(text: str) -> str:
    """Return a text with escapes for what a terminal or a log would trip over."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def some_of(names: Sequence[str], most: int = 5) -> str:
    """Return the first names of a list, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(printable, names[:most])) + more


def one_line(error: BaseException) -> str:
    """Return an error's kind and message on one line: libraries' messages may have several."""
    return " ".join(f"{type(error).__name__}: {error}".split())
