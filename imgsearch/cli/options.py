"""The options of all commands, each declared once with its environment variable and its help."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import click
from click.core import ParameterSource

from imgsearch.cli.config import config_path
from imgsearch.embedding.models import DEFAULT_MODEL, MODELS, ONNX, OPEN_CLIP, TIMM, TORCHVISION
from imgsearch.errors import SettingError
from imgsearch.files.paths import is_url, located
from imgsearch.images.crop import Box
from imgsearch.images.limits import MAX_PIXELS

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from imgsearch.collection import Collection
    from imgsearch.querying.filters import FilterKeywords

__all__ = [
    "FILTERS",
    "OPPOSITES",
    "CollectionLocation",
    "Decorator",
    "Option",
    "Switch",
    "absolute_option",
    "all_hits_option",
    "allow_host_option",
    "apply_option",
    "choose",
    "collection_option",
    "combine_option",
    "config_option",
    "copies_against_option",
    "copies_apply_option",
    "copies_csv_option",
    "copies_delete_forever_option",
    "copies_delete_option",
    "copies_distinct_option",
    "copies_forget_option",
    "copies_html_option",
    "copies_keep_option",
    "copies_link_option",
    "copies_prefer_option",
    "copies_similarity_option",
    "copies_yes_option",
    "crop",
    "crop_option",
    "csv_option",
    "depth_option",
    "device_option",
    "distance_option",
    "exact_option",
    "exclude_option",
    "exclude_self_option",
    "explanation_crop_option",
    "explanation_html_option",
    "explanation_png_option",
    "failed_option",
    "filter_options",
    "filters_of",
    "fold_option",
    "force_option",
    "gallery_k_option",
    "gallery_limit_option",
    "gallery_open_option",
    "gallery_query_option",
    "gpus_option",
    "hits_open_option",
    "host_option",
    "html_option",
    "include_option",
    "include_self_option",
    "insecure_option",
    "json_option",
    "k_option",
    "keep_old_option",
    "limit_option",
    "map_out_option",
    "max_pixels_option",
    "max_upload_option",
    "min_band_option",
    "min_similarity_option",
    "model_option",
    "models_option",
    "moved_option",
    "nlist_option",
    "nlists_option",
    "nprobe_option",
    "nprobes_option",
    "null_option",
    "open_option",
    "option",
    "paths_option",
    "pca_option",
    "plot_option",
    "port_option",
    "preview_option",
    "promise_option",
    "prune_option",
    "queries_option",
    "query_option",
    "rank_option",
    "ray_option",
    "read_only_option",
    "rebuild_option",
    "recall_option",
    "rehash_option",
    "repair_option",
    "reverse_option",
    "sample_option",
    "settings_option",
    "sort_option",
    "speed_option",
    "staging_option",
    "storage_option",
    "strict_option",
    "switch",
    "text_option",
    "thumbnails_option",
    "time_limit_option",
    "to_option",
    "token_option",
    "trust_model_option",
    "unlike_option",
    "unlike_text_option",
    "upload_pixels_option",
    "verbose_option",
    "verify_hits_option",
    "verify_option",
    "verify_ranking_option",
    "weights_option",
    "what_is_unread",
    "workers_option",
    "worst_option",
]


Decorator: TypeAlias = Callable[[Any], Any]


class _ModelName(click.types.StringParamType):
    """The name of a network; whether its library has one of that name is asked when it is used."""

    name = "model"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        del ctx, param
        names = [*MODELS, TORCHVISION, TIMM, OPEN_CLIP, ONNX]
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


class CollectionLocation(click.Path):
    """A path, a `file:` URL, or the URL of a collection that is not in a directory."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a Path, or unchanged the URL of a collection that is not in a directory.

        Raises:
            InputError: If the value is a `file:` URL of another machine.
        """
        from imgsearch.storage.layout import is_elsewhere

        if is_elsewhere(value):
            return value
        if is_url(value):
            here = "give a directory, or milvus://HOST:PORT/NAME"
            self.fail(f"a collection cannot be at {value}; {here}", param, ctx)
        # Convert the URL before it becomes a Path, which merges double slashes.
        path = os.fsdecode(located(value)) if str(value)[:5].lower() == "file:" else value
        return super().convert(path, param, ctx)


class BandName(click.Choice[str]):
    """The name of a band; words may be joined by a hyphen."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the name as `Hit.band` has it."""
        return super().convert(str(value).replace("-", " "), param, ctx)


class Option(click.Option):
    """An option whose error messages name the variable or the file that the value came from."""

    def get_error_hint(self, ctx: click.Context | None) -> str:
        """Return the name of this option for error messages."""
        source = ctx.get_parameter_source(str(self.name)) if ctx else None
        if source is ParameterSource.ENVIRONMENT:
            return str(self.envvar)
        hint = super().get_error_hint(ctx)
        if ctx and source is ParameterSource.DEFAULT_MAP:
            return f"{hint} in {config_path(ctx)}"
        return hint


class Switch(Option):
    """An option without a value; `--no-...` overrides a variable or a configuration file.

    `--help` mentions these opposites only once, below all options.
    """

    def __init__(self, declarations: list[str], **settings: Any) -> None:
        flag = max((name for name in declarations if name.startswith("-")), key=len)
        with_opposite = [f"{d}/--no-{flag[2:]}" if d == flag else d for d in declarations]
        super().__init__(with_opposite, is_flag=True, default=False, **settings)

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return the option's row in `--help`, without the opposite."""
        del ctx
        return ", ".join(self.opts), self.help or ""


def crop(value: Any) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of a box that is given as text or as four numbers.

    Raises:
        BadParameter: If the value is not a box, or the box is empty.
    """
    try:
        left, top, right, bottom = map(float, value.split(",") if isinstance(value, str) else value)
        Box(left, top, right, bottom)
    except (TypeError, ValueError) as error:
        raise click.BadParameter(
            f"{value!r} is not a box; give left,top,right,bottom, such as 0,0,0.5,1 for the left "
            f"half"
        ) from error
    except SettingError as error:
        raise click.BadParameter(str(error)) from error
    return left, top, right, bottom


def option(*names: str, **settings: Any) -> Decorator:
    """Return an option that can also be set by a variable: IMGSEARCH_ and the option's name."""
    flag = max((name for name in names if name.startswith("-")), key=len)
    variable = flag.lstrip("-").replace("-", "_").upper()
    settings = {"cls": Option, "show_default": settings.get("default") is not None, **settings}
    return click.option(*names, **{"envvar": f"IMGSEARCH_{variable}", **settings})


def switch(*names: str, **settings: Any) -> Decorator:
    """Return an option without a value, whose opposite is `--no-...`."""
    return option(*names, cls=Switch, **settings)


#: The sources of an option's value, in order of precedence.
_LEVELS = (
    ParameterSource.COMMANDLINE,
    ParameterSource.ENVIRONMENT,
    ParameterSource.DEFAULT_MAP,
)


def choose(ctx: click.Context, *choices: tuple[str, ...]) -> str | None:
    """Return which of several exclusive choices takes effect; None if none of them is given.

    A flag outranks a variable, and a variable outranks a file. A switch that is off counts as not
    given.

    Args:
        ctx: Context of the command.
        choices: Tuples of the command's parameters that go together, each tuple named by its
            first parameter.

    Raises:
        UsageError: If two are given in the same source.
    """
    for level in _LEVELS:
        here = {
            choice[0]: name
            for choice in choices
            for name in choice
            if ctx.params[name] not in (None, False) and ctx.get_parameter_source(name) is level
        }
        if len(here) > 1:
            raise click.UsageError(_conflict(ctx, level, here.values()), ctx)
        if here:
            return next(iter(here))
    return None


def _conflict(ctx: click.Context, level: ParameterSource, names: Iterable[str]) -> str:
    options = {option.name: option for option in ctx.command.params}
    flags = [max(options[name].opts, key=len) for name in names]
    if level is ParameterSource.ENVIRONMENT:
        flags = [str(options[name].envvar) for name in names]
    where = f" in {config_path(ctx)}" if level is ParameterSource.DEFAULT_MAP else ""
    return f"{' and '.join(flags)} are mutually exclusive{where}: give one of them"


DEVICES = ("auto", "cpu", "cuda", "mps")
STORAGES = ("flat", "compact")
RANKS = ("collection", "cosine")  # as in imgsearch.querying.ranking, which `--help` need not import
PREVIEWS = ("never", "auto", "always", "kitty", "iterm", "sixel", "blocks")
BANDS = ("weak", "similar", "same thing")
ORDERS = ("path", "name", "date", "size", "added")  # as in imgsearch.querying.filters
PREFERENCES = ("largest", "oldest", "newest", "sharpest")  # as in imgsearch.maintenance.preference
OPPOSITES = (
    "Every switch has an opposite: --no-json overrides --json from a variable or a "
    "configuration file."
)


_positive = click.IntRange(min=1)
_share = click.FloatRange(min=0, min_open=True, max=1)

all_hits_option = switch(
    "--all", "all_hits", help="Show all N hits, even those that are not similar."
)
apply_option = switch("--apply", help="Rebuild the index as recommended, and keep that setting.")
collection_option = option(
    "-c",
    "--collection",
    type=CollectionLocation(path_type=Path, file_okay=False),
    help="The collection: a directory, or milvus://HOST:PORT/NAME.  [default: the nearest "
    ".imgsearch in this folder or above]",
)
combine_option = switch(
    "--combine", help="Search once for all images together, by the mean of their embeddings."
)
crop_option = option(
    "--crop",
    type=crop,
    metavar="L,T,R,B",
    help="Search for a part of each image: left, top, right and bottom in pixels of the upright "
    "image, or, if none is more than 1, as fractions of its width and height.",
)
csv_option = switch("--csv", "as_csv", help="Print CSV, one hit per row.")
copies_against_option = option(
    "--against",
    metavar="PATH",
    help="Show which files of a folder, or images of another collection, the collection has.",
)
copies_apply_option = option(
    "--apply",
    "applied",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    envvar="IMGSEARCH_APPLY_FILE",  # `tune --apply` is a switch
    help="Discard only the copies listed in this file, which the page of --html saves; one path "
    "per line.",
)
copies_csv_option = switch("--csv", "as_csv", help="Print CSV, one image per row.")
copies_delete_option = switch(
    "--delete",
    help="Move every image of a group except the one to keep to the trash, after confirmation.",
)
copies_delete_forever_option = switch(
    "--delete-forever", help="The same, but delete the files instead of moving them to the trash."
)
copies_distinct_option = switch(
    "--not-duplicates",
    help="Record that no two of the images PATH... are copies; they are never grouped again.",
)
copies_forget_option = switch(
    "--forget", help="Take back what --not-duplicates recorded about the images PATH..."
)
copies_html_option = option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write an HTML page to review the groups.",
)
copies_keep_option = option(
    "--keep-in",
    multiple=True,
    type=click.Path(),
    metavar="FOLDER",
    help="Never discard an image in this folder, and keep it rather than others; repeatable.",
)
copies_link_option = switch(
    "--link", help="Replace the copies with hard links to the one to keep, after confirmation."
)
copies_prefer_option = option(
    "--prefer",
    type=click.Choice(PREFERENCES),
    help="Which of several equivalent copies to keep.  [default: most bytes, then oldest]",
)
copies_similarity_option = option(
    "--min-similarity",
    type=click.FloatRange(min=-1, max=1),
    metavar="S",
    default=0.75,
    help="Compare the pixels of images at least this similar; lower finds more but is slower.",
)
copies_yes_option = switch(
    "--yes", help="Do not ask for confirmation of --delete, --delete-forever or --link."
)
distance_option = switch("--distance", help="Also show the distance of each hit in the table.")
depth_option = option(
    "-k",
    type=_positive,
    metavar="N",
    default=10,
    help="Hits per query that P@k and recall@k count.",
)
device_option = option(
    "--device",
    type=click.Choice(DEVICES),
    default="auto",
    help="Where the model runs; auto uses a GPU for indexing if there is one.",
)
absolute_option = switch(
    "--absolute", help="Print absolute paths, even of images below the current folder."
)
failed_option = switch("--failed", help="List the files that failed, each with the reason.")
limit_option = option("-n", "-k", "--limit", type=_positive, metavar="N", help="List at most N.")
reverse_option = switch("--reverse", help="Reverse the order.")
verbose_option = switch("-v", "--verbose", help="Show all details of the collection.")
sort_option = option(
    "--sort",
    type=click.Choice(ORDERS),
    default="path",
    help="Sort by path, name, date, size in bytes, or the order in which images were added.",
)
after_option = option(
    "--after",
    metavar="DATE",
    help="Only images from this date on: 2024-05-17, 2024-05 or 2024. The date is the capture time "
    "by the camera's clock or, if there is none, the time of the file.",
)
before_option = option(
    "--before", metavar="DATE", help="Only images from before this day, month or year."
)
in_option = option(
    "--in",
    "folder",
    multiple=True,
    type=click.Path(),
    metavar="FOLDER",
    help="Only images in this folder or below it; repeatable: images in any of them.",
)
name_option = option(
    "--name",
    multiple=True,
    metavar="WORD",
    help="Only images with this word in the name of the file or of a folder above it, or matching "
    "a pattern such as '*beach*'; repeatable: images that match all.",
)
size_option = option(
    "--size",
    multiple=True,
    metavar="SIZE",
    help="Only images of this size: '>2000' for the longer edge in pixels, '>12MP', '<=500kB', or "
    "a range such as 1000..2000; repeatable: images that match all.",
)
format_option = option(
    "--format",
    multiple=True,
    metavar="FORMAT",
    help="Only images of this format, by the file extension: png, jpeg, raw; repeatable: images "
    "of any of them.",
)
camera_option = option(
    "--camera",
    multiple=True,
    metavar="WORD",
    help="Only images from this camera: a word of its make or model, or a pattern; repeatable: "
    "images from any of them.",
)
exact_option = switch("--exact", help="Compare the query with every image.")
exclude_option = option(
    "--exclude",
    multiple=True,
    metavar="PATTERN",
    help="Leave out files and folders, now and in later runs: '*.psd', 'previews/', 'raw/*.jpg'.",
)
include_option = option(
    "--include",
    multiple=True,
    metavar="PATTERN",
    help="Drop a PATTERN of --exclude or of the defaults; `imgsearch info -v` lists them.",
)
rehash_option = switch(
    "--rehash", help="Read every file again, even if its size and times have not changed."
)
explanation_crop_option = option(
    "--crop",
    type=crop,
    metavar="L,T,R,B",
    help="The part of QUERY that was searched for: left, top, right and bottom, as for `query`.",
)
explanation_html_option = option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write an HTML page that shows both images with the parts that contribute most marked.",
)


def _picture_file(_: click.Context, __: click.Parameter, value: Path | None) -> Path | None:
    if value is not None and value.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise click.BadParameter("the name has to end in .png, .jpg or .webp")
    return value


map_out_option = option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    callback=_picture_file,
    help="Also draw the map, with thumbnails, as a PNG, JPEG or WebP.",
)
explanation_png_option = option(
    "--png",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the same two images, side by side, as a PNG.",
)
exclude_self_option = switch(
    "--exclude-self", help="Leave the query image itself out of the hits (the default)."
)
force_option = switch("--force", help="Replace what is there already.")
fold_option = switch("--fold", help="Show versions of the same picture as one hit.")
gallery_k_option = option(
    "-k",
    type=_positive,
    metavar="N",
    default=20,
    help="Number of similar images to show with each image.",
)
gallery_limit_option = option(
    "-n",
    "--limit",
    type=_positive,
    metavar="N",
    help="Show at most N images.  [default: all, or 100 with --query]",
)
gallery_open_option = switch("--open", help="Open the page in a browser.")
gallery_query_option = option(
    "--query",
    type=click.Path(),
    metavar="IMAGE",
    help="Show only the images most similar to this one, best first.",
)
gpus_option = option(
    "--gpus",
    type=click.FloatRange(min=0),
    metavar="N",
    default=0.0,
    help="GPUs per worker of --ray: 0.25 is a quarter of one, 0 the CPU.",
)
hits_open_option = switch(
    "--open", help="Show the hits in a browser, on a page as --html writes it."
)
html_option = option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write an HTML page with thumbnails instead of printing.",
)
include_self_option = switch(
    "--include-self",
    help="Keep the query image itself among the hits.",
)
json_option = switch("--json", "as_json", help="Print JSON.")
k_option = option(
    "-k", "-n", type=_positive, metavar="N", default=10, help="Number of hits per query."
)
max_pixels_option = option(
    "--max-pixels",
    type=_positive,
    metavar="N",
    default=MAX_PIXELS,
    help="Refuse images with more pixels than this.",
)
min_band_option = option(
    "--min-band",
    type=BandName(BANDS),
    help="Show only hits of this band or a better one; the default is similar.",
)
min_similarity_option = option(
    "--min-similarity",
    type=click.FloatRange(-1, 1),
    metavar="S",
    help="Show only images at least as similar as this; 1 is identical.",
)
model_option = option(
    "--model",
    type=_ModelName(),
    metavar="NAME",
    help=f"The network of the collection; see `imgsearch models`.  [default: {DEFAULT_MODEL}]",
)
models_option = option(
    "--models",
    metavar="A,B,...",
    help="Embed the labelled images with these networks, and compare them.",
)
speed_option = switch(
    "--speed",
    help="Measure how fast this machine's CPU runs each network whose weights are here.",
)
keep_old_option = switch(
    "--keep-old",
    help="With another --model than its own: keep the old collection beside the new one.",
)
moved_option = option(
    "--moved",
    nargs=2,
    type=click.Path(),
    metavar="OLD NEW",
    help="Instead of a PATH: record that a folder has moved, without embedding again.",
)
nlist_option = option(
    "--nlist",
    type=_positive,
    metavar="N",
    help="Number of centroids.  [default: chosen by the number of images; no index below 256]",
)
storage_option = option(
    "--storage",
    type=click.Choice(STORAGES),
    help="Index embeddings as they are, or reduced by PCA to a bit per value.  [default: flat]",
)
pca_option = option(
    "--pca",
    type=_positive,
    metavar="DIM",
    help="Dimensions that PCA keeps in a compact index.  [default: 256]",
)
nlists_option = option(
    "--nlist",
    multiple=True,
    type=_positive,
    metavar="N",
    help="Number of centroids to try; repeatable.  [default: five numbers around the usual one]",
)
nprobe_option = option(
    "--nprobe",
    type=_positive,
    metavar="N",
    help="Number of inverted lists to scan.  [default: as many as the recall needs]",
)
nprobes_option = option(
    "--nprobe",
    multiple=True,
    type=_positive,
    metavar="N",
    help="Number of lists to scan; repeatable.  [default: 1, 2, 3, 4, 6 and so on]",
)
null_option = switch("-0", "--null", help="Print paths only, NUL-terminated.")
paths_option = switch("--paths", help="Print paths only, one per line.")
plot_option = option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Draw the plot to this file, .png or .svg; without a suffix, to both.",
)
preview_option = option(
    "--preview",
    type=click.Choice(PREVIEWS),
    default="never",
    help="Show thumbnails of the hits below the table: if the terminal can (auto), even in a file "
    "(always), or by this protocol, where it is not recognised.",
)
promise_option = option(
    "--recall",
    type=_share,
    metavar="R",
    help="Recall@10 that queries must reach, measured against exact search.  [default: 0.95]",
)
prune_option = switch("--prune", help="Drop images whose files are gone, no matter how many.")
queries_option = option(
    "--queries",
    type=_positive,
    metavar="N",
    default=1_000,
    help="Images held out as queries; at most a fifth of all.",
)
query_option = option(
    "--query",
    type=click.Path(),
    metavar="IMAGE",
    help="Add how similar each image is to this one.",
)
rebuild_option = switch("--rebuild", help="Lay out all images again in any case.")
recall_option = option(
    "--recall",
    type=_share,
    metavar="R",
    help="Recall@10 to reach, against exact search.  [default: what the collection promises]",
)
rank_option = option(
    "--rank",
    type=click.Choice(RANKS),
    default="collection",
    help="Rank by what the collection knows of its images, or by the cosine of embeddings.",
)
ray_option = option(
    "--ray",
    metavar="ADDRESS",
    help="Embed on a Ray cluster: local (this machine), auto, or HOST:PORT of the head node.",
)
repair_option = switch("--repair", help="Repair what is damaged.")
sample_option = option(
    "--sample",
    type=click.IntRange(min=0),
    metavar="N",
    default=20,
    help="Number of images to embed again and compare.",
)
settings_option = switch(
    "--settings", help="Show the value of every option of every command, and where it comes from."
)
staging_option = option(
    "--staging",
    metavar="URL",
    help="Where embeddings made by --ray wait to be committed: a folder or a URL such as "
    "s3://bucket/folder that all machines can reach.  [default: in the collection]",
)
strict_option = switch("--strict", help="Exit with 3 if any file failed.")
time_limit_option = option(
    "--time-limit",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    default=60.0,
    help="Maximum seconds to spend on one file.",
)
to_option = option(
    "--to",
    metavar="DESTINATION",
    help="A file that ends in .parquet, .csv or .npz, a folder, milvus://HOST:PORT/NAME, or "
    "milvus:FILE.db for Milvus Lite.",
)
trust_model_option = switch(
    "--trust-model",
    help="Run the model of the collection even if imgsearch did not export it.",
)
unlike_option = option(
    "--unlike",
    multiple=True,
    type=click.Path(),
    metavar="IMAGE",
    help="Search away from this image, with half the weight; repeatable.",
)
text_option = option(
    "--text",
    multiple=True,
    metavar="WORDS",
    help="Search for words, in a collection whose network knows them (open_clip); repeatable.",
)
unlike_text_option = option(
    "--unlike-text",
    multiple=True,
    metavar="WORDS",
    help="Search away from words, with half the weight; repeatable.",
)
verify_hits_option = switch(
    "--verify",
    help="Compare local features with those of the first 50 hits: hits that show the same object, "
    "or part of the same picture, come first.",
)
verify_ranking_option = switch(
    "--verify", help="Also verify the first 50 hits by local features, which is slow."
)
verify_option = switch(
    "--verify", help="Compare the collection with the one in Milvus, and change nothing."
)
weights_option = option(
    "--weights",
    help="The weights of a new collection: a name from torchvision, or a state-dict file.",
)
worst_option = option(
    "--worst",
    type=click.IntRange(0, 10),
    metavar="N",
    default=0,
    help="Also show the N worst queries, at most 10, each with the hits that misled it.",
)
workers_option = option(
    "--workers", type=_positive, metavar="N", help="Worker processes.  [default: one per core]"
)


#: The parameters of `filter_options`, which are keywords of `imgsearch.querying.filters.Filter.of`.
FILTERS = ("name", "after", "before", "folder", "size", "format", "camera")


def filter_options(command: Any) -> Any:
    """Add the options that limit a command to some of the images; see `filters_of`."""
    for add in (camera_option, format_option, size_option, in_option):
        command = add(command)
    for add in (before_option, after_option, name_option):
        command = add(command)
    return command


def filters_of(ctx: click.Context) -> FilterKeywords:
    """Return the keywords of the filter that a command line gives."""
    given = {name: ctx.params[name] for name in FILTERS if ctx.params[name] not in (None, ())}
    return cast("FilterKeywords", given)


def what_is_unread(collection: Collection, given: Container[str]) -> str:
    """Return the end of a message, if a filter may have missed images that no run has read.

    Args:
        collection: The collection that was searched or listed.
        given: Keywords of the filter.
    """
    unread = any(name in given for name in ("size", "camera")) and collection.entries.unread()
    if not unread:
        return ""
    return (
        f"; pixels and camera are not known yet for {unread:,} of its images: run `imgsearch index`"
    )


def config_option(load: Callable[[click.Context, click.Parameter, Any], Any]) -> Decorator:
    """Return the option that reads defaults from a TOML file, using `load`."""
    return option(
        "--config",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        is_eager=True,
        expose_value=False,
        callback=load,
        help="Read options from a TOML file; see configs/default.toml.",
    )


allow_host_option = option(
    "--allow-host",
    multiple=True,
    metavar="NAME",
    help="Also answer requests for this host, as a reverse proxy forwards them; repeatable.",
)
host_option = option(
    "--host", default="127.0.0.1", help="Address or name to listen on; 0.0.0.0 for all addresses."
)
insecure_option = switch(
    "--insecure", help="Do not ask for a token, even if others can reach the server."
)
read_only_option = switch(
    "--read-only", help="Refuse every request that would change the collection."
)
max_upload_option = option(
    "--max-upload",
    type=_positive,
    metavar="MB",
    default=64,
    help="Refuse uploads larger than this, in megabytes.",
)
open_option = switch("--open", help="Open the page in a browser.")
port_option = option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="N",
    default=8765,
    help="Port to listen on; 0 for any free port.",
)
thumbnails_option = option(
    "--thumbnails",
    type=_positive,
    metavar="MB",
    default=1_000,
    help="Maximum megabytes of thumbnails to keep in your cache folder.",
)
token_option = option(
    "--token",
    help="Require this token, of at least 8 characters; auto generates and prints one. Prefer "
    "the variable IMGSEARCH_TOKEN, which other users cannot see.",
)
upload_pixels_option = option(
    "--max-pixels",
    type=_positive,
    metavar="N",
    default=100_000_000,
    help="Refuse uploads with more pixels than this.",
)
