"""`imgsearch completion`."""

from __future__ import annotations

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

__all__ = ["completion"]

SHELLS: dict[str, type[ShellComplete]] = {
    "bash": BashComplete,
    "zsh": ZshComplete,
    "fish": FishComplete,
}


@click.command()
@click.argument("shell", type=click.Choice([*SHELLS]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a script that completes commands and options in a shell.

    Have the shell read it when it starts:

    \b
      eval "$(imgsearch completion bash)"          in ~/.bashrc
      eval "$(imgsearch completion zsh)"           in ~/.zshrc
      imgsearch completion fish | source           in ~/.config/fish/config.fish
    """  # noqa: D301 - not raw: Click wants the character itself
    made = SHELLS[shell](ctx.find_root().command, {}, "imgsearch", "_IMGSEARCH_COMPLETE")
    # Not `made.source()`, which starts Bash to check its version.
    click.echo(made.source_template % made.source_vars())
