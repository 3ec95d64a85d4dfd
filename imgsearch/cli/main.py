"""The `imgsearch` command: its group, and the handling of errors."""

from __future__ import annotations

import errno
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imgsearch.cli.config import load_config
from imgsearch.cli.interrupt import end_at_once, is_left_behind, leave_the_next_to_the_system
from imgsearch.cli.options import collection_option, config_option
from imgsearch.cli.output import complain
from imgsearch.errors import ImgsearchError, StorageError, reason_of

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

__all__ = ["main"]

#: The commands, in the order in which people need them, with what `--help` says of each: their own
#: summary, kept here so that the list of the commands is shown without importing any of them.
COMMANDS = {
    "index": "Embed and index the images under PATH, folders or files.",
    "query": "Show the images most similar to each IMAGE, best first.",
    "list": "List the images in the collection.",
    "explain": "Show where the similarity of QUERY and HIT comes from.",
    "serve": "Show the collection in a browser.",
    "gallery": "Write web pages that show the images, without a server.",
    "duplicates": "Find images that are copies of one another.",
    "map": "Make a map of the collection, similar images side by side.",
    "info": "Show what is in the collection, and how it is searched.",
    "remove": "Take images out of the collection; the files stay.",
    "verify": "Check every file of the collection, and repair it.",
    "evaluate": "Measure P@k, recall@k and mAP on labelled images.",
    "tune": "Measure which nlist and nprobe suit the collection.",
    "export": "Export the collection to a file, a folder or Milvus.",
    "watch": "Index folders whenever something in them changes, until Ctrl-C.",
    "mcp": "Let assistants search the collection (MCP).",
    "models": "List the networks that a collection can be made with.",
    "completion": "Print a script that completes commands and options in a shell.",
}
#: Second names of commands, as people know them from other programs.
ALIASES = {
    "add": "index",
    "check": "verify",
    "dedupe": "duplicates",
    "ls": "list",
    "rm": "remove",
    "search": "query",
    "status": "info",
    "update": "index",
}
#: What a name that is not a command may mean.
MEANT = {
    "compare": ("explain", "evaluate", "duplicates"),
    "delete": ("remove", "duplicates"),
    "find": ("query", "list"),
    "help": ("--help",),
    "import": ("index",),
    "init": ("index",),
    "repair": ("verify --repair",),
    "scan": ("index", "verify"),
    "show": ("query", "info"),
    "stats": ("info",),
    "version": ("--version",),
    "web": ("serve",),
}
INTERRUPTED = 130


class _Group(click.Group):
    """A group that exits with the exit code of the exception that ended its command.

    Its help is also shown if there are no arguments. A command is the function with the same name
    as its module, and is imported only when needed.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"imgsearch.cli.{cmd_name}"), cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, *rest = args
        if name in ALIASES:
            args = [ALIASES[name], *rest]
        elif name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            import difflib

            meant = MEANT.get(name) or difflib.get_close_matches(name, [*COMMANDS, *ALIASES], n=2)
            names = dict.fromkeys(ALIASES.get(each, each) for each in meant)
            hint = " or ".join(f"`imgsearch {each}`" for each in names)
            more = f"did you mean {hint}?" if hint else "`imgsearch --help` lists all commands"
            ctx.fail(f"there is no command {name!r}; {more}")
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        # Click would import every command to see whether it is hidden.
        names = [
            CompletionItem(name, help=text)
            for name, text in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return names + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help(), color=ctx.color)
            ctx.exit()
        return super().parse_args(ctx, args)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        with _exit_codes():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with _exit_codes():
            return super().invoke(ctx)


@contextmanager
def _exit_codes() -> Iterator[None]:
    try:
        yield
    except ImgsearchError as error:
        complain(str(error))
        raise click.exceptions.Exit(error.exit_code) from error
    except OSError as error:
        if error.errno == errno.EPIPE:  # the reader of our output has closed it: Click handles that
            raise
        where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        complain(f"cannot read or write: {where}{reason_of(error)}")
        with suppress(OSError, ValueError):  # else the last flush of stdout fails again, loudly
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise click.exceptions.Exit(StorageError.exit_code) from error
    except MemoryError as error:
        complain("memory ran out; everything indexed so far is kept")
        raise click.exceptions.Exit(StorageError.exit_code) from error
    except ImportError as error:  # for instance a library that does not fit into memory
        complain(f"cannot load a part of this program: {reason_of(error)}")
        raise click.exceptions.Exit(StorageError.exit_code) from error
    except KeyboardInterrupt as error:
        leave_the_next_to_the_system()
        complain("; ".join(["interrupted", *error.args]))
        if is_left_behind():  # in a decoder, which must not run while Python shuts down
            end_at_once(INTERRUPTED)
        raise click.exceptions.Exit(INTERRUPTED) from error


def _fill_standard_streams() -> None:
    """Open closed standard streams, lest a file of the collection get their descriptors."""
    # Stdout is opened read-only, so that writing to it fails and the loss is reported.
    for descriptor, flags in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, flags)  # gets the lowest free descriptor, which is this one
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 nothing found, 2 usage, 3 bad input, 4 damaged collection, "
    "5 busy, 6 model, weights or package missing, 7 cannot read or write, 8 repaired, "
    "130 interrupted.",
)
@collection_option
@config_option(load_config)
@click.version_option(package_name="imgsearch-faiss", prog_name="imgsearch")
@click.pass_context
def main(ctx: click.Context, collection: Path | str | None) -> None:
    """Find images that look alike in your own folders.

    \b
      imgsearch index ~/Pictures      embed and index all images of a folder
      imgsearch query cat.jpg         show the most similar ones
    """  # noqa: D301 - not raw: Click wants the character itself
    # Pillow's warnings are hidden: odd files are either accepted or refused.
    warnings.filterwarnings("ignore", module="PIL")
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    _fill_standard_streams()
    ctx.obj = collection
