"""`imgsearch mcp`."""

from __future__ import annotations

import signal
from pathlib import Path

import click

from imgsearch.cli import options
from imgsearch.cli.interrupt import end_at_once
from imgsearch.cli.locate import locate_any
from imgsearch.cli.output import libraries_silenced
from imgsearch.errors import PackageError

__all__ = ["mcp"]


@click.command(epilog=options.OPPOSITES)
@options.collection_option
@options.device_option
@options.trust_model_option
@click.pass_context
def mcp(ctx: click.Context, collection: Path | str | None, device: str, trust_model: bool) -> None:
    """Let assistants search the collection (MCP).

    An assistant on this machine starts this command, and speaks the Model Context Protocol with it
    on stdin and stdout. It can search, explain, list and ask for information, but change nothing.
    The command ends with exit code 0 at the end of stdin, or on Ctrl-C.
    """
    try:
        from imgsearch.web.assistants import serve
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] not in ("mcp", "pydantic"):
            raise
        what = f"`imgsearch mcp` needs {error.name}, which is not installed"
        raise PackageError(what, "mcp") from error
    from imgsearch.collection import Collection

    location = locate_any(ctx, collection)
    found_there = Collection.open(location, device=device, trust_model=trust_model)
    with libraries_silenced(), found_there as found:
        # An exception would have to wait for the thread that reads stdin.
        before = signal.signal(signal.SIGINT, lambda *_: end_at_once(0))
        try:
            serve(found)
        finally:
            signal.signal(signal.SIGINT, before)
