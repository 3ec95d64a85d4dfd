"""The options of `imgsearch serve` alone; see `imgsearch.cli.options`."""

from __future__ import annotations

import click

from imgsearch.cli.kinds import option, switch

__all__ = [
    "host_option",
    "insecure_option",
    "max_upload_option",
    "open_option",
    "port_option",
    "thumbnails_option",
    "token_option",
    "upload_pixels_option",
]

_positive = click.IntRange(min=1)

host_option = option(
    "--host", default="127.0.0.1", help="Address or name to listen at; 0.0.0.0 for all."
)
insecure_option = switch(
    "--insecure", help="Let everybody in who can reach --host: ask for no token."
)
max_upload_option = option(
    "--max-upload",
    type=_positive,
    metavar="MB",
    default=64,
    help="Refuse uploads of more megabytes.",
)
open_option = switch("--open", help="Open the page in a browser.")
port_option = option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="N",
    default=8765,
    help="Port to listen at; 0 for any that is free.",
)
thumbnails_option = option(
    "--thumbnails",
    type=_positive,
    metavar="MB",
    default=1_000,
    help="Keep up to so many megabytes of thumbnails in your cache folder.",
)
token_option = option(
    "--token", help="Let in who knows this word; better given as IMGSEARCH_TOKEN, unseen by others."
)
upload_pixels_option = option(
    "--max-pixels",
    type=_positive,
    metavar="N",
    default=100_000_000,
    help="Refuse uploads of more pixels.",
)
