"""The options: each stands here once, with its environment variable and its help."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import click

from imgsearch.cli.kinds import Option, Place, Switch, crop
from imgsearch.embedding.limits import MAX_PIXELS
from imgsearch.embedding.models import DEFAULT_MODEL, MODELS

__all__ = [
    "OPPOSITES",
    "Decorator",
    "apply_option",
    "collection_option",
    "combine_option",
    "config_option",
    "crop_option",
    "csv_option",
    "depth_option",
    "device_option",
    "exact_option",
    "exclude_self_option",
    "gpus_option",
    "host_option",
    "html_option",
    "insecure_option",
    "json_option",
    "k_option",
    "max_pixels_option",
    "max_upload_option",
    "min_similarity_option",
    "model_option",
    "moved_option",
    "nlist_option",
    "nlists_option",
    "nprobe_option",
    "nprobes_option",
    "null_option",
    "open_option",
    "paths_option",
    "pca_option",
    "plot_option",
    "port_option",
    "promise_option",
    "prune_option",
    "queries_option",
    "ray_option",
    "recall_option",
    "repair_option",
    "sample_option",
    "settings_option",
    "staging_option",
    "storage_option",
    "strict_option",
    "thumbnails_option",
    "time_limit_option",
    "to_option",
    "token_option",
    "unlike_option",
    "upload_pixels_option",
    "verify_option",
    "weights_option",
    "workers_option",
]

Decorator: TypeAlias = Callable[[Any], Any]

DEVICES = ("auto", "cpu", "cuda", "mps")
STORAGES = ("flat", "compact")
OPPOSITES = "--no-json, and so on, undoes --json where a variable or a configuration file says so."


def _option(*names: str, **settings: Any) -> Decorator:
    flag = max((name for name in names if name.startswith("-")), key=len)
    variable = flag.lstrip("-").replace("-", "_").upper()
    settings = {"cls": Option, "show_default": settings.get("default") is not None, **settings}
    return click.option(*names, envvar=f"IMGSEARCH_{variable}", **settings)


def _switch(*names: str, **settings: Any) -> Decorator:
    """Return an option without a value, whose opposite is `--no-...`."""
    return _option(*names, cls=Switch, **settings)


_positive = click.IntRange(min=1)
_share = click.FloatRange(min=0, min_open=True, max=1)

apply_option = _switch("--apply", help="Make the index anew as recommended, and keep it so.")
collection_option = _option(
    "-c",
    "--collection",
    type=Place(path_type=Path, file_okay=False),
    help="The collection: a directory, or milvus://HOST:PORT/NAME.  [default: the nearest "
    ".imgsearch from here upwards]",
)
combine_option = _switch(
    "--combine", help="Search once, for what is like all images: the mean of their embeddings."
)
crop_option = _option(
    "--crop",
    type=crop,
    metavar="L,T,R,B",
    help="Search for a part of each image: left, top, right and bottom in pixels of the upright "
    "image, or, if none is more than 1, as fractions of its width and height.",
)
csv_option = _switch("--csv", "as_csv", help="Print CSV, a hit a row.")
depth_option = _option(
    "-k", type=_positive, metavar="N", default=10, help="Hits that P@k and recall@k look at."
)
device_option = _option(
    "--device",
    type=click.Choice(DEVICES),
    default="auto",
    help="Where the model runs; auto takes a GPU for indexing if there is one.",
)
exact_option = _switch("--exact", help="Compare with every image.")
exclude_self_option = _switch(
    "--exclude-self", help="Leave the images that are searched for out of the answer."
)
gpus_option = _option(
    "--gpus",
    type=click.FloatRange(min=0),
    metavar="N",
    default=0.0,
    help="GPUs of each worker of --ray, such as 0.25 for a quarter of one; 0 for the CPU.",
)
host_option = _option(
    "--host", default="127.0.0.1", help="Address or name to listen at; 0.0.0.0 for all."
)
html_option = _option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a page with thumbnails to this file instead.",
)
insecure_option = _switch(
    "--insecure", help="Let everybody in who can reach --host: ask for no token."
)
json_option = _switch("--json", "as_json", help="Print JSON.")
k_option = _option("-k", type=_positive, metavar="N", default=10, help="How many images to show.")
max_pixels_option = _option(
    "--max-pixels",
    type=_positive,
    metavar="N",
    default=MAX_PIXELS,
    help="Refuse images of more pixels.",
)
max_upload_option = _option(
    "--max-upload",
    type=_positive,
    metavar="MB",
    default=64,
    help="Refuse uploads of more megabytes.",
)
min_similarity_option = _option(
    "--min-similarity",
    type=click.FloatRange(-1, 1),
    metavar="S",
    help="Show only images at least as similar as this; 1 is identical.",
)
model_option = _option(
    "--model",
    type=click.Choice(list(MODELS)),
    help=f"The network, when the collection is made.  [default: {DEFAULT_MODEL}]",
)
moved_option = _option(
    "--moved",
    nargs=2,
    type=click.Path(),
    metavar="OLD NEW",
    help="Say that a folder was moved, instead of giving a PATH; nothing is embedded again.",
)
nlist_option = _option(
    "--nlist",
    type=_positive,
    metavar="N",
    help="Centroids of the index.  [default: by the number of images, none below 256]",
)
storage_option = _option(
    "--storage",
    type=click.Choice(STORAGES),
    help="What the index holds: embeddings, or a byte for each value PCA leaves.  [default: flat]",
)
pca_option = _option(
    "--pca",
    type=_positive,
    metavar="DIM",
    help="Values that PCA leaves of an embedding, in a compact index.  [default: 256]",
)
nlists_option = _option(
    "--nlist",
    multiple=True,
    type=_positive,
    metavar="N",
    help="Centroids to try; may be given several times.  [default: five, about the usual number]",
)
nprobe_option = _option(
    "--nprobe",
    type=_positive,
    metavar="N",
    help="Inverted lists to scan.  [default: what keeps the recall]",
)
nprobes_option = _option(
    "--nprobe",
    multiple=True,
    type=_positive,
    metavar="N",
    help="Lists to scan; may be given several times.  [default: 1, 2, 3, 4, 6 and so on]",
)
null_option = _switch("-0", "--null", help="Print paths only, each with a NUL behind it.")
open_option = _switch("--open", help="Open the page in a browser.")
paths_option = _switch("--paths", help="Print paths only, one a line.")
plot_option = _option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Draw it to this file, .png or .svg; to both if the name ends with neither.",
)
port_option = _option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="N",
    default=8765,
    help="Port to listen at; 0 for any that is free.",
)
promise_option = _option(
    "--recall",
    type=_share,
    metavar="R",
    help="Recall@10 against exact search that queries are to keep.  [default: 0.95]",
)
prune_option = _switch(
    "--prune", help="Drop the images whose files are gone, however many these are."
)
queries_option = _option(
    "--queries",
    type=_positive,
    metavar="N",
    default=1_000,
    help="Images that are held out to be queries, at most a fifth of all.",
)
recall_option = _option(
    "--recall",
    type=_share,
    metavar="R",
    help="Recall@10 against exact search to keep.  [default: what the collection promises]",
)
ray_option = _option(
    "--ray",
    metavar="ADDRESS",
    help="Embed on a Ray cluster: local for one of this machine, auto, or HOST:PORT of its head.",
)
repair_option = _switch("--repair", help="Repair what is damaged.")
sample_option = _option(
    "--sample",
    type=click.IntRange(min=0),
    metavar="N",
    default=20,
    help="Images that are embedded again and compared.",
)
settings_option = _switch(
    "--settings", help="Show the value of each option of each command, and where it comes from."
)
staging_option = _option(
    "--staging",
    metavar="URL",
    help="Where what is embedded by --ray waits to be committed: a folder, or a URL like "
    "s3://bucket/folder, that all machines reach.  [default: in the collection]",
)
strict_option = _switch("--strict", help="Exit with 3 if any file failed.")
thumbnails_option = _option(
    "--thumbnails",
    type=_positive,
    metavar="MB",
    default=1_000,
    help="Keep up to so many megabytes of thumbnails in your cache folder.",
)
time_limit_option = _option(
    "--time-limit",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    default=60.0,
    help="Seconds that a file may take before it is given up.",
)
to_option = _option(
    "--to",
    metavar="milvus://HOST:PORT/NAME",
    help="Where to: a collection in Milvus, or milvus:FILE.db for Milvus Lite.",
)
token_option = _option(
    "--token", help="Let in who knows this word; better given as IMGSEARCH_TOKEN, unseen by others."
)
unlike_option = _option(
    "--unlike",
    multiple=True,
    type=click.Path(),
    metavar="IMAGE",
    help="Search away from this image, half as strongly; may be given several times.",
)
upload_pixels_option = _option(
    "--max-pixels",
    type=_positive,
    metavar="N",
    default=100_000_000,
    help="Refuse uploads of more pixels.",
)
verify_option = _switch("--verify", help="Compare what is there, and change nothing.")
weights_option = _option(
    "--weights",
    help="Weights, when the collection is made: a name of torchvision's, or a state-dict file.",
)
workers_option = _option(
    "--workers", type=_positive, metavar="N", help="Worker processes.  [default: one a core]"
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
