"""The house is in order: imports, configuration, environment and documents say the same."""

from __future__ import annotations

import ast
import pydoc
import re
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner
from importlinter.cli import lint_imports
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import imgsearch
from imgsearch.cli import main
from imgsearch.cli.config import commands_of
from imgsearch.cli.options import FILTERS
from imgsearch.indexing.options import IndexKeywords, IndexOptions
from imgsearch.querying.filters import Filter, FilterKeywords
from imgsearch.querying.options import QueryOptions, SearchOptions

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "torchvision", "onnxruntime")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_import_table_is_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert lint_imports(cache_dir=None) == 0, capsys.readouterr().out


@pytest.mark.parametrize("path", sorted((ROOT / "imgsearch").rglob("*.py")), ids=str)
def test_nothing_heavy_is_imported_at_the_top_of_a_module(path: Path) -> None:
    tree = ast.parse(path.read_text())
    top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {
        name.partition(".")[0]
        for node in top
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
        )
    }
    assert not names.intersection(HEAVY)


def test_every_module_says_what_it_exports() -> None:
    for path in (ROOT / "imgsearch").rglob("*.py"):
        if path.name in ("__main__.py",) or path.stat().st_size < 200:
            continue
        assert "__all__ = [" in path.read_text(), path


def _parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    given = function.args
    every = [*given.posonlyargs, *given.args, given.vararg, *given.kwonlyargs, given.kwarg]
    return [each.arg for each in every if each is not None and each.arg not in ("self", "cls")]


def test_no_function_takes_more_than_eight_parameters() -> None:
    """A command has one for each of its options; elsewhere they are fields of one value."""
    for path in (ROOT / "imgsearch").rglob("*.py"):
        if path.is_relative_to(ROOT / "imgsearch" / "cli"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert len(_parameters(node)) <= 8, f"{path}:{node.lineno}: {node.name}"


@pytest.mark.parametrize(
    ("keywords", "options"),
    [
        (IndexKeywords, [IndexOptions]),
        (QueryOptions, [Filter, SearchOptions]),
        (FilterKeywords, [Filter]),
    ],
)
def test_the_keywords_of_a_method_are_the_fields_of_its_options(
    keywords: type, options: list[type]
) -> None:
    names = [field.name for each in options for field in fields(each) if field.name != "filter"]
    assert list(keywords.__annotations__) == names


def test_every_filter_can_be_given_on_the_command_line() -> None:
    assert list(FilterKeywords.__annotations__) == list(FILTERS)
    for command in ("query", "list"):
        assert set(FILTERS) <= {parameter.name for parameter in commands_of(main)[command].params}


def test_every_option_of_index_can_be_given_on_the_command_line() -> None:
    flags = {parameter.name for parameter in commands_of(main)["index"].params}
    inside = {"engine", "policy", "progress"}  # objects, which no command line can name
    assert set(IndexKeywords.__annotations__) - inside <= flags


def test_every_public_name_of_the_package_is_there() -> None:
    for name in imgsearch.__all__:
        assert getattr(imgsearch, name).__name__ == name
    shown = {name for name in dir(imgsearch) if not name.startswith("_")}
    assert shown == set(imgsearch.__all__)
    assert "class Collection" in pydoc.plain(pydoc.render_doc(imgsearch))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        imgsearch.nonsense  # noqa: B018 - it raises


def test_the_conda_environment_is_in_step_with_pyproject() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip = environment["dependencies"][0], environment["dependencies"][2]["pip"]
    pytest_range = [
        row for row in PROJECT["optional-dependencies"]["dev"] if row.startswith("pytest>=")
    ]
    assert python == f"python{PROJECT['requires-python']}"
    assert pip[-2:] == ["--constraint constraints.txt", "--editable ."]
    assert sorted(pip[:-2]) == sorted(PROJECT["dependencies"] + pytest_range)


def test_every_dependency_has_a_lower_bound() -> None:
    extras = PROJECT["optional-dependencies"].values()
    for row in [*PROJECT["dependencies"], *(row for extra in extras for row in extra)]:
        assert ">=" in row, row


def _requirements() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"].values()
    return [Requirement(row) for row in sum(extras, PROJECT["dependencies"])]


def _pins(name: str) -> list[Requirement]:
    lines = (ROOT / name).read_text().splitlines()
    return [Requirement(line) for line in lines if not line.startswith("#")]


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_a_release_of_every_dependency_is_pinned_for_every_python(version: str) -> None:
    environment = {"python_version": version, "python_full_version": f"{version}.0"}
    pinned = {
        canonicalize_name(pin.name): next(iter(pin.specifier)).version
        for pin in _pins("constraints.txt")
        if pin.marker is None or pin.marker.evaluate(environment)
    }
    for each in _requirements():
        assert each.specifier.contains(pinned[canonicalize_name(each.name)]), str(each)


def test_the_oldest_releases_that_are_tested_are_the_oldest_that_are_allowed() -> None:
    oldest = {
        canonicalize_name(pin.name): next(iter(pin.specifier)).version
        for pin in _pins("constraints-lowest.txt")
    }
    extras = (
        PROJECT["optional-dependencies"][name]
        for name in ("lite", "mcp", "tables", "text", "watch", "web")
    )
    for row in [*PROJECT["dependencies"], *(row for extra in extras for row in extra)]:
        each = Requirement(row)
        (bound,) = each.specifier
        assert Version(oldest[canonicalize_name(each.name)]) in SpecifierSet(f"=={bound.version}.*")


def _options(command: click.Command) -> dict[str, click.Option]:
    return {
        max(parameter.opts, key=len).lstrip("-"): parameter
        for parameter in command.params
        if isinstance(parameter, click.Option)
    }


@pytest.mark.parametrize("name", ["index", "query", "info", "remove", "verify", "evaluate"])
def test_the_default_configuration_lists_every_option_with_its_default(name: str) -> None:
    text = (ROOT / "configs" / "default.toml").read_text()
    section = text.partition(f"[{name}]")[2].partition("\n[")[0]
    written: dict[str, Any] = tomllib.loads(section)
    for option, parameter in _options(commands_of(main)[name]).items():
        default = parameter.get_default(click.Context(main))
        if option == "collection":  # stands above the tables: it belongs to all commands
            assert "# collection = " in text
        elif option in written:
            assert written[option] == ("mobilenet_v2" if option == "model" else default)
        else:
            assert re.search(rf"^# {option} = ", section, re.M), f"{option} is missing"
            assert not isinstance(default, bool | int | float | str)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.toml")), ids=lambda p: p.name)
def test_every_configuration_file_is_accepted(path: Path) -> None:
    result = CliRunner().invoke(main, ["--config", str(path), "index", "--help"])
    assert result.exit_code == 0, result.output


def test_the_changelog_tells_of_this_version() -> None:
    assert f"## [{PROJECT['version']}]" in (ROOT / "CHANGELOG.md").read_text()


def test_make_help_lists_every_target() -> None:
    help_text = subprocess.run(
        ["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for target in ("help", "venv", "demo", "test", "lint", "bench"):
        assert f"make {target}" in help_text


def test_running_the_module_is_running_the_command() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "imgsearch", "--version"], capture_output=True, text=True, check=True
    )
    assert result.stdout == f"imgsearch, version {PROJECT['version']}\n"


def test_every_test_that_the_page_on_security_names_is_there() -> None:
    page = (ROOT / "docs" / "security.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page)
    assert named
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text(), f"{file}::{test}"


def test_of_each_test_that_make_test_leaves_out_it_runs_a_quicker_form() -> None:
    quicker: dict[str, str] = {}
    tests: set[str] = set()
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        tree = ast.parse(path.read_text())
        for node in [*tree.body, *(each for top in tree.body for each in getattr(top, "body", ()))]:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                tests.add(node.name)
                for mark in map(ast.unparse, node.decorator_list):
                    if found := re.fullmatch(r"pytest\.mark\.whole(?:\('(\w+)'\))?", mark):
                        quicker[node.name] = found[1]
    assert quicker
    for test, instead in quicker.items():
        assert instead in tests - quicker.keys(), test
