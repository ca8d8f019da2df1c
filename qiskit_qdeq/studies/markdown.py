"""Tables of studies in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(columns: Sequence[str], lines: Iterable[Sequence[str]], texts: int = 1) -> list[str]:
    """The lines of a table whose first `texts` columns are texts and whose others are numbers.

    >>> print("\\n".join(table(("solver", "steps"), [("newton", "3")])))
    | solver | steps |
    |---|--:|
    | newton | 3 |
    """
    rule = "|" + "---|" * texts + "--:|" * (len(columns) - texts)
    return [_line(columns), rule, *map(_line, lines)]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
