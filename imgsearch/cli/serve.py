"""`imgsearch serve`."""

from __future__ import annotations

from pathlib import Path

import click

from imgsearch.cli import options
from imgsearch.cli import options as server_options
from imgsearch.cli.locate import locate_any
from imgsearch.cli.output import libraries_silenced, shown, where
from imgsearch.errors import PackageError

__all__ = ["serve"]

AUTO = "auto"  # value of --token that asks for a random token
_OF_THE_EXTRA = ("fastapi", "httptools", "platformdirs", "python_multipart", "starlette", "uvicorn")


@click.command(short_help="Show the collection in a browser.", epilog=options.OPPOSITES)
@server_options.open_option
@server_options.port_option
@server_options.host_option
@server_options.allow_host_option
@server_options.token_option
@server_options.insecure_option
@server_options.read_only_option
@server_options.max_upload_option
@server_options.upload_pixels_option
@server_options.thumbnails_option
@options.collection_option
@options.device_option
@options.trust_model_option
@click.pass_context
def serve(
    ctx: click.Context,
    open: bool,  # noqa: A002 - the name of the option
    port: int,
    host: str,
    allow_host: tuple[str, ...],
    token: str | None,
    insecure: bool,
    read_only: bool,
    max_upload: int,
    max_pixels: int,
    thumbnails: int,
    collection: Path | str | None,
    device: str,
    trust_model: bool,
) -> None:
    """Serve a page to look through the collection and to search it, and a REST API.

    Only this machine can reach it, unless --host or --allow-host says otherwise, which needs a
    --token. The API is described at /openapi.json. Ctrl-C stops the server, with exit code 0.
    """
    try:
        from imgsearch.web.options import ServerOptions
        from imgsearch.web.server import serve
        from imgsearch.web.sessions import new_token
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] not in _OF_THE_EXTRA:
            raise
        what = f"`imgsearch serve` needs {error.name}, which is not installed"
        raise PackageError(what, "web") from error
    made = new_token() if token == AUTO else None
    served = ServerOptions(
        host=host,
        port=port,
        allowed_hosts=allow_host,
        token=made or token or None,
        insecure=insecure,
        read_only=read_only,
        max_upload=max_upload * 1_000_000,
        max_pixels=max_pixels,
        thumbnails=thumbnails * 1_000_000,
    )
    location = locate_any(ctx, collection)

    def ready(address: str) -> None:
        click.echo(f"serving {shown(where(location))} at {address}; press Ctrl-C to stop", err=True)
        if made:
            click.echo(f"the token is {made}", err=True)
        if open:
            click.launch(address)

    with libraries_silenced():
        serve(location, served, device=device, trust_model=trust_model, ready=ready)
