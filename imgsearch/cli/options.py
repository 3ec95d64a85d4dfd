"""The options: each stands here once, with its environment variable and its help."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import click
from click.core import ParameterSource

from imgsearch.embedding.models import DEFAULT_MODEL, MODELS
from imgsearch.storage.layout import Layout

__all__ = [
    "Decorator",
    "collection_option",
    "config_option",
    "device_option",
    "exact_option",
    "exclude_self_option",
    "json_option",
    "k_option",
    "locate",
    "model_option",
    "nlist_option",
    "nprobe_option",
    "paths_option",
    "strict_option",
    "time_limit_option",
    "weights_option",
    "workers_option",
]

Decorator: TypeAlias = Callable[[Any], Any]

DEVICES = ("auto", "cpu", "cuda", "mps")
HIDDEN = ".imgsearch"


def _option(*names: str, **settings: Any) -> Decorator:
    flag = max((name for name in names if name.startswith("-")), key=len)
    variable = flag.lstrip("-").replace("-", "_").upper()
    settings.setdefault("show_default", settings.get("default") is not None)
    return click.option(*names, envvar=f"IMGSEARCH_{variable}", **settings)


_positive = click.IntRange(min=1)

collection_option = _option(
    "-c",
    "--collection",
    type=click.Path(path_type=Path, file_okay=False),
    help="The collection's directory.  [default: the nearest .imgsearch from here upwards]",
)
device_option = _option(
    "--device",
    type=click.Choice(DEVICES),
    default="auto",
    help="Where the model runs; auto takes a GPU for indexing if there is one.",
)
exact_option = _option("--exact", is_flag=True, help="Compare with every image.")
exclude_self_option = _option(
    "--exclude-self", is_flag=True, help="Leave the image at the query's own path out."
)
json_option = _option("--json", "as_json", is_flag=True, help="Print JSON.")
k_option = _option("-k", type=_positive, default=10, help="How many images to show.")
model_option = _option(
    "--model",
    type=click.Choice(list(MODELS)),
    help=f"The network, when the collection is made.  [default: {DEFAULT_MODEL}]",
)
nlist_option = _option(
    "--nlist",
    type=_positive,
    help="Centroids of the index.  [default: by the number of images, none below 256]",
)
nprobe_option = _option(
    "--nprobe",
    type=_positive,
    help="Inverted lists to scan.  [default: what keeps a recall@10 of 0.95]",
)
paths_option = _option("--paths", is_flag=True, help="Print paths only, one a line.")
strict_option = _option("--strict", is_flag=True, help="Exit with 3 if any file failed.")
time_limit_option = _option(
    "--time-limit",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    help="Seconds that a file may take before it is given up.",
)
weights_option = _option(
    "--weights",
    help="Weights, when the collection is made: a name of torchvision's, or a state-dict file.",
)
workers_option = _option(
    "--workers", type=_positive, help="Worker processes.  [default: one a core]"
)


def config_option(load: Callable[[click.Context, click.Parameter, Any], Any]) -> Decorator:
    """Return the option that reads defaults from a TOML file by `load`."""
    return _option(
        "--config",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        is_eager=True,
        expose_value=False,
        callback=load,
        help="Read options from a TOML file; see configs/default.toml.",
    )


def locate(ctx: click.Context, collection: Path | None) -> Path:
    """Return the collection's directory.

    The one given after the command or before it, the nearest `.imgsearch` from here upwards, or
    `./.imgsearch`.
    """
    # What is given before the command comes before a variable or a file, which stand for both.
    after = ctx.get_parameter_source("collection") is ParameterSource.COMMANDLINE
    given = collection if after else ctx.obj or collection
    if isinstance(given, Path):
        return given
    here = Path.cwd()
    near = (folder / HIDDEN for folder in (here, *here.parents))
    return next((path for path in near if Layout(path).exists()), here / HIDDEN)
