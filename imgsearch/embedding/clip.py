"""The networks of open_clip, whose images and words have embeddings in one space.

Nothing here names one of them: open_clip says what they consist of, and where their weights are.
Importing this module is fast; its functions import open_clip, and none of them runs for a query.
"""

from __future__ import annotations

import io
import json
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imgsearch.embedding.models import OPEN_CLIP, Network
from imgsearch.errors import ModelError, PackageError, is_installed, reason_of

if TYPE_CHECKING:
    import torch

__all__ = ["TEMPLATES", "export_words", "fetch", "find", "load_state", "names", "whereabouts"]

#: What words are put into. The authors of CLIP found that this prompt finds more images by their
#: descriptions (Radford et al. 2021).
TEMPLATES = ("a photo of {}",)

_EXAMPLE = "ViT-B-32/laion2b_s34b_b79k"


def _open_clip(what: str) -> Any:
    if not (is_installed("open_clip") and is_installed("torch")):
        raise PackageError(f"{what} needs open-clip-torch, which is not installed", "text")
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"  # read when open_clip imports huggingface_hub
    import open_clip

    return open_clip


def names() -> list[str]:
    """Return ARCH/PRETRAINED for all networks of open_clip that can be exported."""
    library = _open_clip("listing the networks of open_clip")
    return [
        f"{arch}/{tag}"
        for arch, tag in library.list_pretrained()
        if _refusal(library.get_model_config(arch)) is None
    ]


def find(name: str) -> Network:
    """Return the network called `open_clip:ARCH/PRETRAINED`.

    Raises:
        ModelError: If open_clip has no such network, or no such weights for it, or if its text
            tower cannot be exported.
        PackageError: If open_clip is not installed.
    """
    from difflib import get_close_matches

    library = _open_clip(f"the network {name}")
    arch, _, tag = name.removeprefix(OPEN_CLIP).partition("/")
    if (config := library.get_model_config(arch) if ":" not in arch else None) is None:
        near = get_close_matches(arch, library.list_models())
        meant = f"did you mean {' or '.join(near)}? " if near else ""
        raise ModelError(f"open_clip has no network {arch!r}; {meant}`imgsearch models` lists them")
    tags = library.pretrained.list_pretrained_tags_by_model(arch)
    if tag not in tags:
        there = f"there are {', '.join(tags)}" if tags else f"choose another, such as {_EXAMPLE}"
        given = f"has no weights {tag!r} of {arch}" if tag else f"wants the weights of {arch}"
        raise ModelError(f"open_clip {given}, as in {OPEN_CLIP}ARCH/WEIGHTS; {there}")
    if (reason := _refusal(config)) is not None:
        raise ModelError(f"{name} {reason}; choose another, such as {OPEN_CLIP}{_EXAMPLE}")
    pretrained = library.get_pretrained_cfg(arch, tag)
    return Network(
        name=f"{OPEN_CLIP}{arch}/{tag}",
        builder=arch,
        input_size=_input_size(config),
        dim=config["embed_dim"],
        weights=tag,
        library="open_clip",
        mean=tuple(pretrained["mean"]),
        std=tuple(pretrained["std"]),
    )


def _input_size(config: dict[str, Any]) -> int:
    size = config["vision_cfg"].get("image_size", 224)
    return int(size if isinstance(size, int) else size[0])


def _refusal(config: dict[str, Any]) -> str | None:
    """Return why a network cannot be exported, in words that follow its name, or None."""
    text = config["text_cfg"]
    if "hf_tokenizer_name" in text or "hf_model_name" in text:
        return "has a tokenizer of the library transformers, which is not exported"
    if text.get("embed_cls") or text.get("pool_type", "argmax") != "argmax":
        return "has a text tower that takes its result from elsewhere than the end of the words"
    size = config["vision_cfg"].get("image_size", 224)
    if not isinstance(size, int) and size[0] != size[-1]:
        return "takes images that are not square"
    return None


def whereabouts(network: Network) -> tuple[Path | None, str]:
    """Return the file with the weights of a network, None unless it is here, and its URL."""
    library = _open_clip(f"the network {network.name}")
    from huggingface_hub import try_to_load_from_cache

    pretrained = library.get_pretrained_cfg(network.builder, network.weights)
    if not pretrained["hf_hub"]:
        url: str = pretrained["url"]
        path = Path("~/.cache/clip").expanduser() / os.path.basename(url)
        return path if path.is_file() else None, url
    folder, file = os.path.split(pretrained["hf_hub"])
    file = file or "open_clip_pytorch_model.bin"
    others = library.pretrained._get_safe_alternatives(file)
    for each in [*others, file]:
        if isinstance(found := try_to_load_from_cache(folder, each), str):
            return Path(found), f"https://huggingface.co/{folder}"
    return None, f"https://huggingface.co/{folder}"


def fetch(network: Network) -> Path:
    """Download the weights of a network, and return their file.

    Raises:
        OSError, RuntimeError, ValueError: If that is impossible.
        PackageError: If open_clip is not installed.
    """
    library = _open_clip(f"the network {network.name}")
    pretrained = library.get_pretrained_cfg(network.builder, network.weights)
    return Path(library.pretrained.download_pretrained(pretrained))


def load_state(network: Network, state: dict[str, torch.Tensor], *, source: str) -> torch.nn.Module:
    """Build the image tower of a network with the weights `state`.

    Args:
        network: The network.
        state: A state dict of both towers, in any form that open_clip reads.
        source: Origin of `state`, for messages.

    Raises:
        ModelError: If tensors are missing, unknown or of the wrong shape.
        PackageError: If open_clip is not installed.
    """
    module: torch.nn.Module = _both(network, state, source).visual
    return module


def export_words(network: Network, state: dict[str, torch.Tensor], *, source: str) -> bytes:
    """Return the text tower of a network as ONNX, with its tokenizer; see `load_state`.

    The inputs are `tokens`, int64 `[1, length]`, and `end`, int64 `[1]`, the place of the last one;
    the output is `embedding`, float32 `[1, dim]`, L2-normalised. The tokenizer and the templates
    are the metadata that `imgsearch.embedding.words` reads.
    """
    import gzip

    import onnx
    import torch

    from imgsearch.embedding.onnx.folding import fold_shapes
    from imgsearch.embedding.runtime import run_words
    from imgsearch.embedding.words import METADATA, VERSION

    library, both = _open_clip(f"the network {network.name}"), _both(network, state, source)
    text = getattr(both, "text", None)
    if text is None:
        both.text_pool_type = "none"
    else:
        text.pool_type = "none"

    class Words(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.both = both

        def forward(self, tokens: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
            rows = self.both.encode_text(tokens)[0].index_select(0, end)
            return torch.nn.functional.normalize(rows.float(), dim=1)

    example = torch.zeros(1, both.context_length, dtype=torch.int64)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # As in `imgsearch.embedding.models.export_onnx`.
        torch.onnx.export(
            Words().eval(),
            (example, example[0, :1]),
            buffer,  # type: ignore[arg-type]  # the exporter writes to it, its annotation lags
            dynamo=False,
            opset_version=17,
            input_names=["tokens", "end"],
            output_names=["embedding"],
        )
    try:
        folded = fold_shapes(buffer.getvalue(), lambda model, wanted, _: run_words(model, wanted))
    except ValueError as error:
        raise ModelError(f"the text tower of {network.name} cannot be exported: {error}") from error
    with gzip.open(library.tokenizer.default_bpe(), "rt", encoding="utf-8") as file:
        merges = file.read().split("\n")[1 : 49152 - 256 - 2 + 1]  # As open_clip's tokenizer does.
    written = {"version": VERSION, "templates": TEMPLATES, "merges": merges}
    model = onnx.load_model_from_string(folded)
    model.metadata_props.add(key=METADATA, value=json.dumps(written, ensure_ascii=False))
    serialised: bytes = model.SerializeToString()
    return serialised


def _both(network: Network, state: dict[str, torch.Tensor], source: str) -> Any:
    """Return both towers with the weights `state`, which open_clip itself loads."""
    library = _open_clip(f"the network {network.name}")
    pretrained = library.get_pretrained_cfg(network.builder, network.weights)
    with _without_warnings():  # that it has no weights yet
        module = library.create_model(
            network.builder,
            load_weights=False,
            force_quick_gelu=pretrained.get("quick_gelu", False),  # as it was when they were made
            pretrained_text=False,
        )
    prefix = "module."  # of checkpoints of training runs
    given = {key.removeprefix(prefix): value.float() for key, value in state.items()}
    try:
        with _read(library.factory, given):
            library.load_checkpoint(module, source)
    except Exception as error:  # Its readers of others' files assert what they expect.
        raise ModelError(
            f"{source} does not fit {network.name}: {reason_of(error)[:200]}; "
            f"give a state dict of open_clip's {network.builder}"
        ) from error
    return module.eval()


@contextmanager
def _without_warnings() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


@contextmanager
def _read(factory: Any, state: dict[str, torch.Tensor]) -> Iterator[None]:
    """Have open_clip get a state dict where it would read it from a file."""
    kept = factory.load_state_dict
    factory.load_state_dict = lambda *_, **__: state
    try:
        yield
    finally:
        factory.load_state_dict = kept
