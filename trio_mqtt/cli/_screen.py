"""Lines for people: in columns, in colour where that is wanted, in ASCII where it must be."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Mapping
from typing import TextIO

import attrs

from ._output import write_line

WIDTH = 79
INDENT = "  "


@attrs.frozen
class Symbols:
    """What is drawn with."""

    rule: str
    right: str
    left: str
    cut_right: str
    cut_left: str
    warning: str
    right_answer: str
    wrong_answer: str


UNICODE = Symbols("─", "──▶", "◀──", "──✂", "✂──", "⚠", "✓", "✗")
ASCII = Symbols("-", "-->", "<--", "--x", "x--", "!", "ok:", "FAILED:")

PLAIN = 0
BOLD, DIM, RED, GREEN, YELLOW, BLUE, CYAN = 1, 2, 31, 32, 33, 34, 36
"""Parameters of the terminal's sequence for colours."""


def wants_colour(out: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether colour is right: for a terminal that knows it, and nobody objects (no-color.org)."""
    if environ.get("NO_COLOR") or environ.get("TERM") == "dumb" or not out.isatty():
        return False
    # Older consoles of Windows would show the sequences themselves.
    return sys.platform != "win32" or "WT_SESSION" in environ or "TERM" in environ


def can_show(text: str, encoding: str | None) -> bool:
    """Whether `text` can be written in `encoding`."""
    try:
        text.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


class Screen:
    """Where lines go, each at once."""

    def __init__(self, out: TextIO, *, colour: bool) -> None:
        self._out = out
        self._colour = colour
        unicode = can_show("".join(attrs.astuple(UNICODE)), out.encoding)
        self.symbols = UNICODE if unicode else ASCII
        self._sections = 0

    def line(self, text: str = "", colour: int = PLAIN) -> None:
        """Writes a line as it is."""
        write_line(self._out, self.painted(text, colour))

    def painted(self, text: str, colour: int) -> str:
        """`text` in a colour, if that is wanted."""
        return f"\033[{colour}m{text}\033[0m" if text and colour and self._colour else text

    def item(self, text: str, colour: int = PLAIN) -> None:
        """Writes an indented line."""
        self.line(INDENT + self.painted(text, colour))

    def section(self, headline: str, explanation: str = "") -> None:
        """Begins a section."""
        self._sections += 1
        rule = self.symbols.rule
        text = f"{rule * 2} {self._sections}. {headline} "
        self.line()
        self.line(text + rule * (WIDTH - len(text)), BOLD)
        if explanation:
            self.paragraph(explanation)
            self.line()

    def paragraph(self, text: str) -> None:
        """Writes a text for reading, wrapped."""
        for line in textwrap.wrap(text, WIDTH - len(INDENT)):
            self.item(line, DIM)

    def verdict(self, text: str, *, right: bool) -> None:
        """Writes what came of it."""
        symbols = self.symbols
        if right:
            self.item(f"{symbols.right_answer} {text}", GREEN)
        else:
            self.item(f"{symbols.wrong_answer} {text}", RED)
