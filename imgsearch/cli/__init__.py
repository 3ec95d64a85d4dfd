"""The command line, which only parses arguments, calls the library and prints."""

from __future__ import annotations

try:
    from imgsearch.cli.main import main
except KeyboardInterrupt:  # nothing has begun yet, so there is nothing to report
    raise SystemExit(130) from None

__all__ = ["main"]
