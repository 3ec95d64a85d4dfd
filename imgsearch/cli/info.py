"""`imgsearch info`."""

from __future__ import annotations

from pathlib import Path

import click

from imgsearch.cli import options
from imgsearch.cli.locating import locate_any
from imgsearch.cli.reports import info_as_json, info_as_text
from imgsearch.cli.settings import settings_as_json, settings_as_text, settings_of
from imgsearch.embedding.models import MODELS

__all__ = ["info"]


@click.command(epilog=options.OPPOSITES)
@options.settings_option
@options.json_option
@options.collection_option
@options.device_option
@click.pass_context
def info(
    ctx: click.Context, settings: bool, as_json: bool, collection: Path | str | None, device: str
) -> None:
    """Show what is in the collection, and how it is searched."""
    if settings:
        rows = settings_of(ctx)
        click.echo(settings_as_json(rows) if as_json else settings_as_text(rows))
        return
    from imgsearch.places import opened

    with opened(locate_any(ctx, collection), device=device) as found:
        facts = found.info()
    click.echo(info_as_json(facts) if as_json else info_as_text(facts, list(MODELS)))
