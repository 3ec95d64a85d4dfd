"""`imgsearch info`."""

from __future__ import annotations

from pathlib import Path

import click

from imgsearch.cli import options
from imgsearch.cli.output import info_as_json, info_as_text
from imgsearch.embedding.models import MODELS

__all__ = ["info"]


@click.command()
@options.collection_option
@options.json_option
@options.device_option
@click.pass_context
def info(ctx: click.Context, collection: Path | None, as_json: bool, device: str) -> None:
    """Show what is in the collection, how it is searched, and with what."""
    from imgsearch.collection import Collection

    with Collection.open(options.locate(ctx, collection), device=device) as found:
        facts = found.info()
    click.echo(info_as_json(facts) if as_json else info_as_text(facts, list(MODELS)))
