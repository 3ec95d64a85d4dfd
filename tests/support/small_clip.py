"""A CLIP that costs little: open_clip's own, with random weights, in the cache of a download."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

__all__ = [
    "ARCH",
    "DIM",
    "NAME",
    "SIZE",
    "make_clip",
    "make_worded_collection",
    "place",
    "register",
    "site",
]

ARCH, TAG, REPOSITORY = "ViT-tiny", "random", "tests/vit-tiny"
NAME = f"open_clip:{ARCH}/{TAG}"
DIM, SIZE = 24, 32

_SITE = """
import sys
if any(part.endswith("embedding.export") for part in sys.orig_argv):
    from pathlib import Path
    from tests.support.small_clip import register
    register(Path(__file__).parent)
"""

CONFIG: dict[str, Any] = {
    "embed_dim": DIM,
    "vision_cfg": {"image_size": SIZE, "layers": 2, "width": 64, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


def site() -> str:
    """Return a `sitecustomize.py` by which open_clip knows the network, where it is exported."""
    return _SITE


def register(folder: Path, **more: Any) -> None:
    """Make open_clip know the network, whose configuration is written into a folder."""
    import open_clip

    (folder / f"{ARCH}.json").write_text(json.dumps({**CONFIG, **more}))
    open_clip.add_model_config(folder / f"{ARCH}.json")
    known = open_clip.pretrained._PRETRAINED
    known[ARCH] = {TAG: open_clip.pretrained._pcfg(hf_hub=f"{REPOSITORY}/")}


def make_clip(**more: Any) -> Any:
    """Return the network with seeded random weights, which tell images and words apart."""
    import open_clip
    import torch

    kind = open_clip.CustomTextCLIP if more.pop("custom_text", False) else open_clip.CLIP
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = kind(**CONFIG, **more)
        for name, parameter in made.named_parameters():
            if name.endswith(("embedding.weight", "positional_embedding")):
                torch.nn.init.normal_(parameter, std=1.0)
    return made.eval()


def place(hub: Path, state: dict[str, Any]) -> Path:
    """Put weights where huggingface_hub keeps what it has downloaded; return their path."""
    from safetensors.torch import save

    content = save({name: value.contiguous() for name, value in state.items()})
    folder = hub / f"models--{REPOSITORY.replace('/', '--')}"
    revision, blob = "0" * 40, hashlib.sha256(content).hexdigest()
    for part in ("refs", "blobs", f"snapshots/{revision}"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text(revision)
    (folder / "blobs" / blob).write_bytes(content)
    path = folder / "snapshots" / revision / "open_clip_model.safetensors"
    path.unlink(missing_ok=True)
    path.symlink_to(f"../../blobs/{blob}")
    return path


def make_worded_collection(directory: Path) -> Path:
    """Make an empty collection of the network, exported in this process; return its directory."""
    from imgsearch.embedding.clip import export_words
    from imgsearch.embedding.models import build, export_onnx, find_network
    from imgsearch.images import DECODER
    from imgsearch.indexing.create import begin
    from imgsearch.storage.layout import Layout
    from imgsearch.storage.records import ModelRecord

    directory.parent.mkdir(parents=True, exist_ok=True)
    register(directory.parent)
    network, state = find_network(NAME), make_clip().state_dict()
    onnx = export_onnx(build(network, state, source="test"), network)
    words = export_words(network, state, source="test")
    digests = [hashlib.sha256(each).hexdigest() for each in (onnx, words)]
    record = ModelRecord(NAME, DIM, SIZE, TAG, "0" * 64, digests[0], DECODER, digests[1])
    begin(Layout(directory), record, onnx, words)
    return directory
