"""The command line: parse, call the library, print. Nothing else."""

from __future__ import annotations

try:
    from imgsearch.cli.main import main
except KeyboardInterrupt:  # before anything has begun: the shell's prompt says enough
    raise SystemExit(130) from None

__all__ = ["main"]
