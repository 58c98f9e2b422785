"""The command line. Each command has a module of its own."""

from __future__ import annotations

from ._main import main

__all__ = ["main"]
