"""The command line: parse, call the library, print. Nothing else."""

from __future__ import annotations

from imgsearch.cli.main import main

__all__ = ["main"]
