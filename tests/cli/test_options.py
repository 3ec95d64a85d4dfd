"""Where options come from: flag, environment, configuration file, default; and `-c`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import Result

from imgsearch.cli.query import query as query_command
from imgsearch.collection import Collection
from imgsearch.querying.ranking import BANDS, DEFAULT, RANKS
from tests.support.small_network import make_small_collection

Invoke = Callable[..., Result]


def hits(ended: Result) -> int:
    assert ended.exit_code == 0, ended.stderr
    return len(ended.stdout.splitlines())


@pytest.fixture
def query(photos: Path) -> list[str]:
    return ["query", str(photos / "0003.png"), "--paths"]


# -c


def test_the_collection_may_be_named_before_the_command_or_after_it(
    invoke: Invoke, indexed: Path, query: list[str]
) -> None:
    for arguments in (["-c", "indexed", *query], [*query, "-c", "indexed"]):
        assert hits(invoke(*arguments)) == 10
    assert hits(invoke("-c", "nowhere", *query, "--collection", str(indexed))) == 10


@pytest.mark.parametrize("form", ["file:{}", "file://{}", "FILE://localhost{}", "file:///{}/"])
def test_the_collection_may_be_named_by_any_form_of_a_file_url(
    invoke: Invoke, indexed: Path, query: list[str], form: str
) -> None:
    spaced = indexed.rename(indexed.with_name("my photos"))
    url = form.format(str(spaced).replace(" ", "%20"))
    assert hits(invoke("-c", url, *query)) == 10
    assert hits(invoke(*query, env={"IMGSEARCH_COLLECTION": url})) == 10
    with Collection.open(url, device="cpu") as collection:
        assert collection.info().images == 40


def test_a_collection_on_another_machine_is_refused(invoke: Invoke, query: list[str]) -> None:
    ended = invoke("-c", "file://nas/photos", *query)
    assert (ended.exit_code, "host 'nas'" in ended.stderr) == (3, True)
    ended = invoke("-c", "s3://bucket/photos", *query)
    assert (ended.exit_code, "cannot be at s3://bucket/photos" in ended.stderr) == (2, True)


def test_a_collection_that_is_named_comes_before_the_environment(
    invoke: Invoke, indexed: Path, query: list[str]
) -> None:
    elsewhere = {"IMGSEARCH_COLLECTION": "nowhere"}
    assert hits(invoke("-c", "indexed", *query, env=elsewhere)) == 10
    assert hits(invoke(*query, "-c", "indexed", env=elsewhere)) == 10
    assert hits(invoke(*query, env={"IMGSEARCH_COLLECTION": str(indexed)})) == 10
    assert invoke(*query, env=elsewhere).exit_code == 3


@pytest.mark.usefixtures("indexed")
def test_a_collection_may_be_named_in_a_configuration_file(
    invoke: Invoke, query: list[str]
) -> None:
    for text in ('collection = "indexed"', '[query]\ncollection = "indexed"'):
        Path("config.toml").write_text(text)
        assert hits(invoke("--config", "config.toml", *query)) == 10
        assert invoke("--config", "config.toml", "-c", "nowhere", *query).exit_code == 3


def test_otherwise_it_is_the_nearest_one_upwards(
    invoke: Invoke,
    indexed: Path,
    tmp_path: Path,
    query: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "a" / "b" / ".imgsearch").mkdir(parents=True)  # not a collection
    monkeypatch.chdir(tmp_path / "a" / "b")
    ended = invoke(*query)
    assert ended.exit_code == 3
    assert ended.stderr == (
        f"imgsearch: there is no collection at {tmp_path / 'a' / 'b' / '.imgsearch'}, nor in any "
        "folder above; create one with `imgsearch index FOLDER`, or name one with -c DIR or "
        "IMGSEARCH_COLLECTION\n"
    )
    for command in (["info"], ["verify"], ["duplicates"], ["tune"], ["remove", "a.jpg"]):
        other = invoke(*command)
        assert (other.exit_code, other.stderr) == (3, ended.stderr)
    indexed.rename(tmp_path / ".imgsearch")
    assert hits(invoke(*query)) == 10
    make_small_collection(tmp_path / "a" / ".imgsearch")
    assert invoke(*query).exit_code == 1


def test_index_brings_the_nearest_one_upwards_up_to_date(
    invoke: Invoke, indexed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    indexed.rename(tmp_path / ".imgsearch")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    ended = invoke("index", "--json")
    assert json.loads(ended.stdout)["collection"] == str(tmp_path / ".imgsearch")
    assert json.loads(ended.stdout)["unchanged"] == 40


# Precedence


@pytest.mark.usefixtures("indexed")
def test_a_flag_comes_before_the_environment_before_the_file_before_the_default(
    invoke: Invoke, query: list[str]
) -> None:
    Path("config.toml").write_text("[query]\nk = 7\n")
    base = ["-c", "indexed", *query]
    with_file = ["--config", "config.toml", *base]
    assert hits(invoke(*base)) == 10
    assert hits(invoke(*with_file)) == 7
    assert hits(invoke(*with_file, env={"IMGSEARCH_K": "5"})) == 5
    assert hits(invoke(*with_file, "-k", "3", env={"IMGSEARCH_K": "5"})) == 3
    assert hits(invoke(*base, env={"IMGSEARCH_CONFIG": "config.toml"})) == 7


@pytest.mark.usefixtures("indexed")
def test_every_kind_of_option_has_its_variable(invoke: Invoke, photos: Path) -> None:
    base = ["-c", "indexed", "query", str(photos / "0003.png")]
    assert json.loads(invoke(*base, env={"IMGSEARCH_JSON": "1"}).stdout)["hits"]
    assert hits(invoke(*base, env={"IMGSEARCH_PATHS": "1"})) == 10
    for name, count in (("EXCLUDE", 39), ("INCLUDE", 40)):
        own = {f"IMGSEARCH_{name}_SELF": "1", "IMGSEARCH_PATHS": "1", "IMGSEARCH_K": "99"}
        assert hits(invoke(*base, env=own)) == count
    assert invoke("-c", "indexed", "index", env={"IMGSEARCH_NLIST": "4"}).exit_code == 0
    info = json.loads(invoke("-c", "indexed", "info", "--json").stdout)
    assert info["ivf"]["nlist"] == 4


@pytest.mark.usefixtures("indexed")
def test_a_configuration_file_sets_options_of_every_command(invoke: Invoke) -> None:
    Path("config.toml").write_text(
        'collection = "indexed"\n'
        "[index]\nnlist = 4\ntime-limit = 5.5\njson = true\n"
        "[query]\nexclude-self = true\n"
        "[info]\njson = true\n"
    )
    assert json.loads(invoke("--config", "config.toml", "index").stdout)["unchanged"] == 40
    assert json.loads(invoke("--config", "config.toml", "info").stdout)["ivf"]["nlist"] == 4


@pytest.mark.usefixtures("indexed")
def test_a_switch_of_a_file_or_a_variable_is_undone_by_its_opposite(
    invoke: Invoke, photos: Path
) -> None:
    Path("config.toml").write_text("[query]\njson = true\n")
    base = ["--config", "config.toml", "-c", "indexed", "query", str(photos / "0003.png")]
    assert invoke(*base).stdout.startswith("{")
    assert invoke(*base, env={"IMGSEARCH_JSON": "no"}).stdout.startswith(str(photos))
    assert invoke(*base, "--no-json").stdout.startswith(str(photos))
    assert invoke(*base, "--no-json", "--json").stdout.startswith("{")
    assert invoke(*base[2:], "--no-json", env={"IMGSEARCH_JSON": "1"}).stdout.startswith(
        str(photos)
    )


@pytest.mark.usefixtures("indexed")
def test_of_options_that_exclude_each_other_the_nearest_is_heeded(
    invoke: Invoke, photos: Path
) -> None:
    invoke("-c", "indexed", "index", "--nlist", "5")
    Path("config.toml").write_text("[query]\nexact = true\njson = true\n")
    base = ["--config", "config.toml", "-c", "indexed", "query", str(photos / "0003.png")]

    def search(*flags: str, **env: str) -> tuple[str, int]:
        answer = json.loads(invoke(*base, *flags, env=env).stdout)
        return answer["search"], answer["nprobe"]

    assert search() == ("exact", 0)
    assert search("--nprobe", "2") == search(IMGSEARCH_NPROBE="2") == ("ivf", 2)
    assert search("--nprobe", "2", IMGSEARCH_RECALL="0.9") == ("ivf", 2)
    assert search("--exact", IMGSEARCH_NPROBE="2") == ("exact", 0)
    assert search(IMGSEARCH_NPROBE="2", IMGSEARCH_EXACT="0") == ("ivf", 2)
    assert search("--no-exact", "--nprobe", "2") == ("ivf", 2)
    assert invoke(*base, "--paths").stdout.startswith(str(photos))
    assert invoke(*base, env={"IMGSEARCH_CSV": "1"}).stdout.startswith("query,rank")


@pytest.mark.usefixtures("indexed")
def test_repeated_options_and_boxes_have_their_form_in_a_file_and_in_a_variable(
    invoke: Invoke, photos: Path
) -> None:
    others = [str(photos / "0001.png"), str(photos / "0002.jpg")]
    base = ["-c", "indexed", "query", str(photos / "0003.png"), "--json"]
    flags = [part for other in others for part in ("--unlike", other)]
    expected = invoke(*base, *flags, "--crop", "0,0,0.5,1").stdout
    assert [part["path"] for part in json.loads(expected)["unlike"]] == others
    for crop in ("[0, 0, 0.5, 1]", '"0,0,0.5,1"'):
        Path("config.toml").write_text(f"[query]\nunlike = {others}\ncrop = {crop}\n")
        assert invoke("--config", "config.toml", *base).stdout == expected
    env = {"IMGSEARCH_UNLIKE": ":".join(others), "IMGSEARCH_CROP": "0,0,.5,1"}
    assert invoke(*base, env=env).stdout == expected


# What makes no sense


@pytest.mark.usefixtures("indexed")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[index]\nnlits = 3", "there is no option 'nlits'; did you mean nlist?"),
        ("[qeury]\nk = 3", "there is no option 'qeury'; did you mean query?"),
        ("[query]\nzzzzzz = 3", "there is no option 'zzzzzz'; did you mean "),
        ("query = 3", "there is no option 'query'"),
        ("[query.k]\nk = 3", "there is no option 'k'"),
        ("this is not TOML", "config.toml is not a TOML file"),
        ("\udcff", "config.toml is not a TOML file"),
        ("[query]\nk = 'many'", "k cannot be 'many'"),
        ("[query]\nk = 0", "Invalid value for '-k' / '-n' in config.toml: 0 is not in the range"),
        ("[query]\nexact = 1", "exact cannot be 1"),
        ("[query]\nrecall = true", "recall cannot be True"),
        ("[query]\nrecall = 2", "Invalid value for '--recall' in config.toml"),
        ("[query]\nunlike = 'a.jpg'", "unlike cannot be 'a.jpg'"),
        ("[query]\nunlike = [1]", "unlike cannot be [1]"),
        ("[query]\ncrop = [0, 0, 1]", "[0, 0, 1] is not a box"),
        ("[query]\ncrop = ['0', 0, 1, 1]", "crop cannot be ['0', 0, 1, 1]"),
        ("[query]\ncrop = '0,0,0,1'", "the crop 0,0,0,1 is empty"),
        ("k = 3", "there is no option 'k'; it belongs in [query]"),
        ("[index]\nk = 3", "there is no option 'k'; it belongs in [query]"),
        ("[info]\nconfig = 'x'", "there is no option 'config'; did you mean"),
        ("[query]\nno-exact = true", "there is no option 'no-exact'; did you mean exact?"),
        ("[index]\nmoved = ['a']", "moved cannot be ['a']"),
        ('[remove]\ncollection = "\\u0000"', r"collection cannot be '\x00'"),
        ('[query]\nname = ["a\\u0000"]', r"name cannot be ['a\x00']"),
        ("[completion]\nshell = 'bash'", "this command has none that a file may set"),
        (
            "[query]\nexact = true\nnprobe = 3",
            "--nprobe and --exact are mutually exclusive in config.toml",
        ),
    ],
)
def test_a_configuration_file_that_makes_no_sense_ends_with_2(
    invoke: Invoke, query: list[str], text: str, message: str
) -> None:
    Path("config.toml").write_bytes(os.fsencode(text))
    ended = invoke("--config", "config.toml", "-c", "indexed", *query)
    assert ended.exit_code == 2
    assert message in ended.stderr


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that fails to read")
def test_a_configuration_file_that_cannot_be_read_ends_with_7(invoke: Invoke) -> None:
    ended = invoke("--config", "/proc/self/mem", "info")
    assert ended.exit_code == 7
    assert ended.stderr == "imgsearch: cannot read /proc/self/mem: Input/output error\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["query"],
        ["query", "a.jpg", "--nonsense"],
        ["query", "a.jpg", "-k", "0"],
        ["query", "a.jpg", "-k", "many"],
        ["query", "a.jpg", "--nprobe", "-1"],
        ["query", "a.jpg", "--device", "tpu"],
        ["query", "a.jpg", "--recall", "0"],
        ["query", "a.jpg", "--recall", "1.1"],
        ["query", "a.jpg", "--min-similarity", "2"],
        ["query", "a.jpg", "--crop", "1,2,3"],
        ["query", "a.jpg", "--crop", "a,b,c,d"],
        ["query", "a.jpg", "--crop", "5,0,5,9"],
        ["query", "a.jpg", "--crop", "nan,0,5,9"],
        ["query", "a.jpg", "--exact", "--nprobe", "3"],
        ["query", "a.jpg", "--exact", "--recall", "0.9"],
        ["query", "a.jpg", "--nprobe", "3", "--recall", "0.9"],
        ["query", "a.jpg", "--json", "--paths"],
        ["query", "a.jpg", "--json", "--csv"],
        ["query", "a.jpg", "--csv", "-0"],
        ["query", "a.jpg", "--html", "a.html", "--paths"],
        ["query", "a.jpg", "--html", "."],
        ["query", "-", "-"],
        ["query", "-", "--unlike", "-"],
        ["index", "a", "--moved", "a", "b"],
        ["remove"],
        ["index", "--nlist", "0"],
        ["index", "--workers", "0"],
        ["index", "--time-limit", "0"],
        ["nonsense"],
        ["--config", "missing.toml", "info"],
        ["-c", "file", "info"],
    ],
)
def test_usage_errors_end_with_2(invoke: Invoke, arguments: list[str]) -> None:
    Path("file").write_bytes(b"")
    ended = invoke(*arguments)
    assert ended.exit_code == 2
    assert "Usage: " in ended.stderr
    assert ended.stdout == ""


@pytest.mark.usefixtures("indexed")
def test_an_error_about_a_value_names_the_variable_that_it_is_from(
    invoke: Invoke, query: list[str]
) -> None:
    ended = invoke("-c", "indexed", *query, env={"IMGSEARCH_K": "many"})
    assert ended.exit_code == 2
    assert "Invalid value for IMGSEARCH_K: 'many' is not a valid integer" in ended.stderr
    both = {"IMGSEARCH_EXACT": "1", "IMGSEARCH_RECALL": "0.9"}
    ended = invoke("-c", "indexed", *query, env=both)
    assert ended.exit_code == 2
    assert "IMGSEARCH_RECALL and IMGSEARCH_EXACT are mutually exclusive: give one" in ended.stderr


def test_the_choices_of_ranking_are_those_of_the_library() -> None:
    parameters = {each.name: each for each in query_command.params}
    rank, min_band = parameters["rank"], parameters["min_band"]
    assert isinstance(rank.type, click.Choice)
    assert isinstance(min_band.type, click.Choice)
    assert set(rank.type.choices) == set(RANKS)
    assert tuple(min_band.type.choices) == BANDS
    assert rank.default == DEFAULT
