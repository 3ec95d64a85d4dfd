"""The networks of open_clip: a small one with random weights, for none can be downloaded here."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import open_clip
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from imgsearch.collection import Collection
from imgsearch.embedding.clip import TEMPLATES, export_words, whereabouts
from imgsearch.embedding.clip import names as listed
from imgsearch.embedding.models import Network, build, export_onnx, find_network, names_same
from imgsearch.embedding.onnx.check import check_model, check_words
from imgsearch.embedding.onnx.protobuf import ForeignError
from imgsearch.embedding.runtime import OnnxRuntime, TorchRuntime
from imgsearch.embedding.tokens import Tokenizer
from imgsearch.embedding.weights import file_digest, find_weights, read_state, source_of
from imgsearch.embedding.words import METADATA, WordEmbedder
from imgsearch.errors import (
    DamagedError,
    InputError,
    ModelError,
    PackageError,
    UntrustedModelError,
)
from imgsearch.images.decode import Pixels
from imgsearch.querying.options import Words
from tests.support.commands import Run
from tests.support.small_clip import ARCH, DIM, NAME, SIZE, make_clip, place, register, site

CLOSE = 1e-4  # what is close enough in a value of an embedding
TEXTS = ["a red bicycle", "Two dogs, playing (in the snow)!", "café", "猫", "x" * 500, "word " * 99]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The cache of huggingface_hub, empty; open_clip knows the small network meanwhile."""
    from huggingface_hub import constants

    folder = tmp_path_factory.mktemp("home")
    register(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub"))
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        yield folder / "hub"
    del open_clip.pretrained._PRETRAINED[ARCH]


@pytest.fixture
def placed(hub: Path) -> Path:
    """The weights of the small network, as if they had been downloaded."""
    return place(hub, make_clip().state_dict())


@pytest.fixture
def network(placed: Path) -> Network:
    """The small network, whose weights are here."""
    assert placed.exists()
    return find_network(NAME)


def _words(network: Network, path: Path, state: dict[str, torch.Tensor]) -> WordEmbedder:
    path.write_bytes(export_words(network, state, source="test"))
    return WordEmbedder(path, network.dim)


# Parity


@pytest.mark.parametrize("custom_text", [False, True])
def test_both_towers_embed_as_open_clips_own(
    custom_text: bool, network: Network, photographs: Callable[[int], Pixels], tmp_path: Path
) -> None:
    theirs = make_clip(custom_text=custom_text)
    state = theirs.state_dict()  # its names differ, and open_clip knows both
    if custom_text:
        state = {key.removeprefix("text."): value for key, value in state.items()}
    pixels = photographs(SIZE)
    (tmp_path / "model.onnx").write_bytes(
        export_onnx(build(network, state, source="test"), network)
    )
    assert check_model((tmp_path / "model.onnx").read_bytes()) == (SIZE, DIM)
    inputs = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (network.mean, network.std))
    with torch.inference_mode():
        images = theirs.encode_image((inputs - mean) / std, normalize=True).numpy()
    runtime = OnnxRuntime(tmp_path / "model.onnx")
    for count in (1, len(pixels)):
        rows = runtime.embed(pixels[:count])
        np.testing.assert_allclose(rows, images[:count], rtol=0, atol=CLOSE)

    words = _words(network, tmp_path / "words.onnx", state)
    assert check_words((tmp_path / "words.onnx").read_bytes()) == (77, DIM)
    prompts = [template.format(text) for text in TEXTS for template in TEMPLATES]
    with torch.inference_mode():
        tokens = open_clip.get_tokenizer(ARCH)(prompts)
        texts = theirs.encode_text(tokens, normalize=True).numpy()
    assert len(TEMPLATES) == 1  # or the prompts of a text have to be averaged here
    for text, expected in zip(TEXTS, texts, strict=True):
        np.testing.assert_allclose(words.embed(text)[0], expected, rtol=0, atol=CLOSE)
    for rows in (images, texts):  # agreement means something
        assert np.abs(rows[:-1] - rows[1:]).max(axis=1).min() > 100 * CLOSE


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("tower", "size"), [("convnext_atto", SIZE), ("vit_tiny_patch16_224", 224)]
)
def test_an_image_tower_of_timm_embeds_as_open_clips_own(
    tower: str,
    size: int,
    hub: Path,
    photographs: Callable[[int], Pixels],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    vision = {"timm_model_name": tower, "timm_model_pretrained": False, "image_size": size}
    vision |= {"timm_pool": "avg", "timm_proj": "linear"}
    request.addfinalizer(lambda: register(hub.parent))
    register(hub.parent, vision_cfg=vision)
    network = find_network(NAME)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = open_clip.create_model(ARCH, load_weights=False).eval()
    module = build(network, theirs.state_dict(), source="test")
    (tmp_path / "model.onnx").write_bytes(export_onnx(module, network))
    assert check_model((tmp_path / "model.onnx").read_bytes()) == (size, DIM)
    pixels = photographs(size)
    inputs = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (network.mean, network.std))
    with torch.inference_mode():
        images = theirs.encode_image((inputs - mean) / std, normalize=True).numpy()
    rows = OnnxRuntime(tmp_path / "model.onnx").embed(pixels)
    np.testing.assert_allclose(rows, images, rtol=0, atol=CLOSE)
    assert np.abs(images[:-1] - images[1:]).max(axis=1).min() > 10 * CLOSE


def test_torch_embeds_images_as_the_exported_network(
    network: Network, photographs: Callable[[int], Pixels], tmp_path: Path
) -> None:
    found = find_weights(network)
    module = build(network, read_state(network, found), source=str(found.path))
    (tmp_path / "model.onnx").write_bytes(export_onnx(module, network))
    pixels = photographs(SIZE)
    on_torch = TorchRuntime(network, found.name, found.sha256, "cpu").embed(pixels)
    np.testing.assert_allclose(
        on_torch, OnnxRuntime(tmp_path / "model.onnx").embed(pixels), rtol=0, atol=CLOSE
    )


# The tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    with gzip.open(open_clip.tokenizer.default_bpe(), "rt", encoding="utf-8") as file:
        return Tokenizer(file.read().split("\n")[1:48_895])


def _agree(tokenizer: Tokenizer, text: str, length: int = 77) -> None:
    (theirs,) = open_clip.SimpleTokenizer()(text, length).tolist()
    ours, end = tokenizer.tokens(text, length)
    assert ours == theirs, text
    assert end == theirs.index(max(theirs))


@pytest.mark.parametrize(
    "text",
    [
        *TEXTS,
        "",
        " \t\n ",
        "Don't stop! It's 42nd street…",
        "“quoted” ‘words’ — naïve e\u0301tude",
        "a&amp;lt;b &eacute;",
        "ﬁre ＡＢＣ ｱ ½ ² °",
        "Ǆ ǅ ǆ ŉ ĳ ǋ it'ſ",
        "a\x8db c\u206bd e\ufeff",
        "o'clock we'll I'd they've 'sup ''tis 's",
        "🐱 👩‍👩‍👧 日本語 12",
        "İstanbul ΑΒΓ Straße",
        "a\x00b\x07c wi\u00a0de\u2009r",
        "snake_case/and.dots",
    ],
)
def test_words_have_the_tokens_that_open_clip_gives_them(tokenizer: Tokenizer, text: str) -> None:
    _agree(tokenizer, text)
    _agree(tokenizer, text, 5)


@given(st.text("abzXY019 ,.!?'-_&#éñ漢🐱\n\t", max_size=40))
def test_so_have_any_texts_of_common_characters(text: str) -> None:
    _agree(_CACHED[0], text)


_CACHED: list[Tokenizer] = []


@pytest.fixture(autouse=True, scope="module")
def _cached(tokenizer: Tokenizer) -> None:
    _CACHED.append(tokenizer)  # hypothesis wants no fixture of a function


# Names and weights


def test_the_name_of_a_network_has_its_weights(network: Network) -> None:
    assert (network.name, network.weights, network.dim) == (NAME, "random", DIM)
    assert names_same(NAME, network.name)


def test_the_networks_that_can_be_exported_are_those_with_the_tokenizer_of_clip() -> None:
    names = listed()
    assert "ViT-B-32/laion2b_s34b_b79k" in names
    assert len(names) > 50
    assert not any(name.startswith(("ViT-B-16-SigLIP", "coca_")) for name in names)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("ViT-B-33", "no network 'ViT-B-33'; did you mean ViT-B-32"),
        ("hf-hub:someone/else", "no network 'hf-hub:someone'"),
        ("ViT-B-32", "wants the weights of ViT-B-32, as in open_clip:ARCH/WEIGHTS; there are op"),
        ("ViT-B-32/laion", "has no weights 'laion' of ViT-B-32, as in open_clip:ARCH/WEIGHTS"),
        ("ViT-S-32/any", "has no weights 'any' of ViT-S-32, as in open_clip:ARCH/WEIGHTS; choose"),
    ],
)
def test_what_open_clip_does_not_have_is_a_setting_error(name: str, told: str) -> None:
    with pytest.raises(ModelError) as caught:
        find_network(f"open_clip:{name}")
    assert f"open_clip {'has ' * told.startswith('no ')}{told}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("roberta-ViT-B-32/laion2b_s12b_b32k", "has a tokenizer of the library transformers"),
        ("coca_ViT-B-32/laion2b_s13b_b90k", "has a text tower that takes its result from else"),
    ],
)
def test_what_cannot_be_exported_is_refused_in_one_line(name: str, why: str) -> None:
    with pytest.raises(ModelError, match=f"^open_clip:{name} {why}") as caught:
        find_network(f"open_clip:{name}")
    assert str(caught.value).endswith(
        "choose another, such as open_clip:ViT-B-32/laion2b_s34b_b79k"
    )
    assert caught.value.exit_code == 6


def test_without_open_clip_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(PackageError, match="needs open-clip-torch, which is not") as caught:
        find_network(NAME)
    assert (caught.value.extra, caught.value.exit_code) == ("text", 6)


def test_weights_that_were_downloaded_are_found_without_asking_anybody(
    network: Network, placed: Path
) -> None:
    found = find_weights(network)
    assert (found.name, found.path, found.sha256) == ("random", placed, file_digest(placed))
    source = source_of(network)
    assert (source.place, source.is_here) == (str(placed), True)
    assert source.licence == "see https://huggingface.co/tests/vit-tiny"


def test_weights_that_cannot_be_fetched_are_an_error_with_the_remedy(
    network: Network, placed: Path
) -> None:
    shutil.rmtree(placed.parents[2])
    assert whereabouts(network) == (None, "https://huggingface.co/tests/vit-tiny")
    with pytest.raises(ModelError) as caught:
        find_weights(network)
    told = (
        "cannot fetch the weights random of open_clip:ViT-tiny/random from https://huggingface.co/"
    )
    assert str(caught.value).startswith(told)
    assert str(caught.value).endswith("give the file with --weights FILE")
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_a_training_run_is_read_as_well(network: Network, tmp_path: Path) -> None:
    state = {f"module.{key}": value for key, value in make_clip().state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "epoch.pt")
    read = read_state(network, find_weights(network, str(tmp_path / "epoch.pt")))
    built = build(network, read, source="test").state_dict()
    (weight,) = (built[key] for key in built if key.endswith("conv1.weight"))
    assert torch.equal(weight, state["module.visual.conv1.weight"])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"visual.class_embedding": None}, "Missing key"),
        ({"positional_embedding": torch.zeros(77, 8)}, "width changed"),
        ({"more": torch.zeros(1)}, "Unexpected key"),
    ],
)
def test_a_state_dict_that_does_not_fit_is_a_model_error(
    change: dict[str, Any], told: str, network: Network
) -> None:
    changed = {**make_clip().state_dict(), **change}
    state = {key: value for key, value in changed.items() if value is not None}
    with pytest.raises(ModelError, match=f"old.pt does not fit {NAME}: .*{told}") as caught:
        build(network, state, source="old.pt")
    assert "\n" not in str(caught.value)


# What is not run


def test_a_text_tower_with_other_operators_or_inputs_is_foreign(
    network: Network, tmp_path: Path
) -> None:
    path = tmp_path / "words.onnx"
    state = make_clip().state_dict()
    made = onnx.load_model_from_string(export_words(network, state, source="test"))

    def saved(change: Callable[[onnx.ModelProto], None]) -> bytes:
        changed = onnx.ModelProto()
        changed.CopyFrom(made)
        change(changed)
        path.write_bytes(changed.SerializeToString())
        return path.read_bytes()

    def sine(model: onnx.ModelProto) -> None:
        model.graph.node[-1].output[0] = "before"
        model.graph.node.append(helper.make_node("Sin", ["before"], ["embedding"]))

    def renamed(model: onnx.ModelProto) -> None:
        model.graph.input[0].name = "pixels"

    def longer(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 2_000

    for change in (sine, renamed, longer):
        with pytest.raises(ForeignError):
            check_words(saved(change))
        with pytest.raises(UntrustedModelError, match=r"words.onnx was not exported by imgsearch"):
            WordEmbedder(path, DIM)
    with pytest.raises(ForeignError):
        check_model(made.SerializeToString())  # nor is it a network for images
    saved(lambda _: None)
    with pytest.raises(DamagedError, match=f"to {DIM} numbers, but .* should map them to 7"):
        WordEmbedder(path, 7)


_WRITTEN = {"version": 1, "templates": ["{}"], "merges": ["a b"]}


@pytest.mark.parametrize(
    "written",
    [
        None,
        "[" * 10_000,
        json.dumps([]),
        json.dumps({**_WRITTEN, "version": 2}),
        json.dumps({**_WRITTEN, "templates": ["no place"]}),
        json.dumps({**_WRITTEN, "templates": []}),
        json.dumps({**_WRITTEN, "merges": ["ab"]}),
        json.dumps({**_WRITTEN, "merges": [7]}),
        json.dumps({"version": 1}),
    ],
)
def test_a_tokenizer_that_cannot_be_read_is_damage(
    written: str | None, network: Network, tmp_path: Path
) -> None:
    path = tmp_path / "words.onnx"
    made = export_words(network, make_clip().state_dict(), source="test")
    model = onnx.load_model_from_string(made)
    del model.metadata_props[:]
    if written is not None:
        model.metadata_props.add(key=METADATA, value=written)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(DamagedError, match="has no tokenizer that can be read; `imgsearch verify"):
        WordEmbedder(path, DIM)


def test_merges_of_another_vocabulary_are_an_error_and_no_crash(
    network: Network, tmp_path: Path
) -> None:
    path = tmp_path / "words.onnx"
    made = export_words(network, make_clip().state_dict(), source="test")
    model = onnx.load_model_from_string(made)
    merges = [f"a{number} b" for number in range(60_000)]
    model.metadata_props[0].value = json.dumps({**_WRITTEN, "merges": merges})
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"words.onnx cannot be run"):
        WordEmbedder(path, DIM).embed("a cat")


# The whole way


#: Hides what exports a network from a process.
WITHOUT = """
import sys
for name in ("torch", "torchvision", "open_clip", "huggingface_hub", "regex", "ftfy"):
    sys.modules[name] = None
"""


def _env(folder: Path, site_text: str) -> dict[str, str]:
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(site_text)
    path = os.pathsep.join([str(folder), str(Path(__file__).parents[2])])
    hidden = {"HF_HOME": str(folder.parent / "hf"), "HF_HUB_OFFLINE": "1"}
    return {"PYTHONPATH": path, **hidden}


@pytest.mark.processes
@pytest.mark.whole("test_both_towers_embed_as_open_clips_own")
def test_a_collection_answers_words_without_torch_and_open_clip(
    run: Run, photos: Path, tmp_path: Path
) -> None:
    placed = place(tmp_path / "hf" / "hub", make_clip().state_dict())
    making = _env(tmp_path / "making", site())
    made = run("-c", "here", "index", photos, "--model", NAME, cwd=tmp_path, env=making)
    assert (made.code, "WARNING" in made.err) == (0, False), made.err
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    ask = partial(run, "-c", "there", cwd=tmp_path, env=_env(tmp_path / "asking", WITHOUT))

    words = ask("query", "--text", "a red bicycle", "--text", "snow", "-k", "3", "--json")
    assert words.code == 0, words.err
    first, second = map(json.loads, words.out.splitlines())
    assert (first["text"], second["text"]) == ("a red bicycle", "snow")
    assert len(first["hits"]) == 3
    assert {hit[name] for hit in first["hits"] for name in ("band", "z", "score")} == {None}
    photo = min(photos.glob("*.png"))
    mixed = ("query", photo, "--text", "snow", "--unlike-text", "a dog", "--combine", "--json")
    found = json.loads(ask(*mixed).out)
    assert found["queries"] == [{"path": str(photo)}, {"text": "snow"}]
    assert found["unlike"] == [{"text": "a dog"}]
    assert str(photo) not in {hit["path"] for hit in found["hits"]}
    page = ask("query", "--text", "<snow>", "--html", "page.html")
    assert page.code == 0, page.err
    assert "&lt;snow&gt;" in (tmp_path / "page.html").read_text()
    assert ask("query", "--text", "snow", "--csv").out.splitlines()[1].startswith("snow,1,")
    assert ask("query", "--text", " ").code == 3
    assert ask("query", "--text", "snow", "--verify").code == 2

    assert ask("verify").code == 0
    content = bytearray((tmp_path / "there" / "words.onnx").read_bytes())
    content[-7] ^= 1
    (tmp_path / "there" / "words.onnx").write_bytes(content)
    refused = ask("query", "--text", "snow")
    assert (refused.code, "words.onnx has changed since it was written" in refused.err) == (4, True)
    assert ask("query", photo).code == 0  # which needs no words
    assert "words.onnx" in ask("verify").out
    mend = partial(run, "-c", "there", "verify", cwd=tmp_path, env=making)
    mended = mend("--repair")
    assert (mended.code, "words.onnx: exported again" in mended.out) == (8, True), mended
    assert mend().code == 0
    assert json.loads(ask("query", "--text", "snow", "-k", "3", "--json").out) == second
    (tmp_path / "there" / "words.onnx").unlink()
    assert "words.onnx is missing" in ask("query", "--text", "snow").err
    placed.unlink()
    assert mend("--repair").code == 4  # the weights are gone


@pytest.mark.processes
@pytest.mark.whole("test_both_towers_embed_as_open_clips_own")
@pytest.mark.parametrize("tower", ["visual.class_embedding", "ln_final.weight"])
def test_values_that_are_not_finite_are_refused(
    tower: str, run: Run, photos: Path, tmp_path: Path
) -> None:
    state = make_clip().state_dict()
    state[tower] = torch.full_like(state[tower], torch.nan)
    place(tmp_path / "hf" / "hub", state)
    making = _env(tmp_path / "making", site())
    ended = run("-c", "here", "index", photos, "--model", NAME, cwd=tmp_path, env=making)
    assert ended.code == 6
    assert "values with it that are not finite; choose other weights" in ended.err


def test_a_collection_of_another_network_says_that_it_knows_no_words(empty: Path) -> None:
    with Collection.open(empty, device="cpu") as collection:
        with pytest.raises(ModelError) as caught:
            collection.query(Words("snow"))
        with pytest.raises(InputError, match="words cannot be cropped"):
            collection.embed([Words("snow")], crop=(0, 0, 1, 1))
    told = "made with mobilenet_v2, which knows no words; to search by words, make one"
    assert told in str(caught.value)
    assert caught.value.exit_code == 6
