"""The options of `imgsearch serve` alone; see `imgsearch.cli.options`."""

from __future__ import annotations

import click

from imgsearch.cli.kinds import option, switch

__all__ = [
    "allow_host_option",
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

allow_host_option = option(
    "--allow-host",
    multiple=True,
    metavar="NAME",
    help="Answer requests for this host, too, as a reverse proxy passes them on; repeatable.",
)
host_option = option(
    "--host", default="127.0.0.1", help="Address or name to listen at; 0.0.0.0 for all addresses."
)
insecure_option = switch(
    "--insecure", help="Ask for no token, even if others can reach the server."
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
    "--token",
    help="Require this token, of at least 8 characters; auto makes one up and shows it. Better "
    "given as IMGSEARCH_TOKEN, which others do not see.",
)
upload_pixels_option = option(
    "--max-pixels",
    type=_positive,
    metavar="N",
    default=100_000_000,
    help="Refuse uploads of more pixels.",
)
