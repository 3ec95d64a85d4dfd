"""Assistants search a collection by the Model Context Protocol, and change nothing."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import anyio
import pytest
from mcp import Client, StdioServerParameters, stdio_client

from imgsearch.collection import Collection
from imgsearch.embedding.lanes import decoders
from imgsearch.web.assistants import server_of
from tests.support.commands import imgsearch_command

Ask: TypeAlias = Callable[..., Any]


async def asked(client: Client, tool: str, **arguments: Any) -> Any:
    """Return what a tool answers, or the text by which it refuses to."""
    result = await client.call_tool(tool, arguments)
    (content,) = result.content
    text: str = content.text  # type: ignore[union-attr]
    if result.is_error:
        return text
    assert json.loads(text) == result.structured_content
    return result.structured_content


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Take back what the server of the SDK sets for its own process, for further tests of this."""
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


@pytest.fixture
def ask(opened: Collection) -> Iterator[Ask]:
    """Ask a tool of a server in this process: `ask("search", image=..., k=3)`."""
    with decoders(1) as lane:
        server = server_of(opened, lane)

        def ask(tool: str, **arguments: Any) -> Any:
            async def talk() -> Any:
                async with Client(server) as client:
                    return await asked(client, tool, **arguments)

            return anyio.run(talk)

        yield ask


def test_an_assistant_searches_explains_and_lists(
    ask: Ask, opened: Collection, photos: Path
) -> None:
    own = photos / "0003.png"
    id_ = opened.id_of(own)
    hits = opened.query(own, k=4, format="png")
    for image in (str(own), id_, str(id_)):
        found = ask("search", image=image, k=4, min_band="weak", filter={"format": "png"})
        assert [hit["id"] for hit in found["hits"]] == [hit.id for hit in hits]
    explained = ask("explain", image=str(own), hit=hits[0].id)
    assert explained["similarity"] == pytest.approx(hits[0].similarity, abs=1e-5)
    assert explained["hit_parts"]
    listed = ask("list", filter={"format": ["png"]}, sort="added", limit=3, offset=2)
    assert listed["total"] == 20
    assert [row["id"] for row in listed["images"]] == opened.entries.ids(format="png")[2:5]
    assert ask("info")["images"] == 40


@pytest.mark.parametrize(
    ("tool", "arguments", "told"),
    [
        ("search", {"image": "/none\n/x.png"}, "cannot be"),
        ("search", {"image": "a\0.png"}, "is not a path"),
        ("search", {"image": ""}, "is not a path"),
        ("search", {"image": "/dev/zero"}, "/dev/zero: "),
        ("search", {"image": "/etc/passwd"}, "/etc/passwd: "),
        ("search", {"image": "http://127.0.0.1/a.png"}, "is a URL"),
        ("search", {"image": "s3://bucket/a.png"}, "is a URL"),
        ("search", {"image": 10**9}, "there is no image with the id"),
        ("search", {"image": 1, "k": 10**9}, "k: "),
        ("search", {"image": 1, "k": "; rm -rf /"}, "k: "),
        ("search", {"image": 1, "filter": {"size": "huge"}}, "huge"),
        ("search", {"image": 1, "filter": {"shell": "x"}}, "filter.shell: "),
        ("search", {"image": 1, "prune": True}, "search has no argument 'prune'; it has image"),
        ("search", {}, "image: Field required"),
        ("explain", {"image": 1, "hit": "/etc/passwd"}, "is not in the collection"),
        ("list", {"limit": 10**7}, "limit: "),
        ("remove", {"image": 1}, "Unknown tool"),
    ],
)
def test_what_cannot_be_done_is_refused_by_one_line(
    ask: Ask, tool: str, arguments: dict[str, Any], told: str
) -> None:
    refusal = ask(tool, **arguments)
    assert isinstance(refusal, str)
    assert told in refusal
    assert refusal.isprintable()


@pytest.mark.processes
def test_the_official_client_lists_and_calls_the_tools(indexed: Path, photos: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in indexed.rglob("*")}
    command, *arguments = imgsearch_command("mcp", "-c", indexed)
    server = StdioServerParameters(command=command, args=arguments, env=dict(os.environ))

    async def talk() -> None:
        async with Client(stdio_client(server)) as client:
            tools = (await client.list_tools()).tools
            assert [tool.name for tool in tools] == ["search", "explain", "list", "info"]
            assert all(tool.annotations and tool.annotations.read_only_hint for tool in tools)
            assert all(tool.description for tool in tools)
            found = await asked(client, "search", image=str(photos / "0003.png"), k=2)
            assert found["search"] == "exact"
            assert "is a URL" in await asked(client, "search", image="http://127.0.0.1/")

    anyio.run(talk)
    assert {path: path.stat().st_mtime_ns for path in indexed.rglob("*")} == before


@pytest.mark.whole("test_the_official_client_lists_and_calls_the_tools")
@pytest.mark.processes
def test_ctrl_c_ends_the_server(indexed: Path) -> None:
    server = subprocess.Popen(
        imgsearch_command("mcp", "-c", indexed),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert server.stdin
    assert server.stdout
    hello = {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "x", "version": "1"},
    }
    message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}
    server.stdin.write(json.dumps(message).encode() + b"\n")
    server.stdin.flush()
    assert json.loads(server.stdout.readline())["result"]["serverInfo"]["name"] == "imgsearch"
    server.send_signal(signal.SIGINT)
    assert server.wait(30) == 0
    assert server.stderr
    assert server.stderr.read() == b""
    for pipe in (server.stdin, server.stdout, server.stderr):
        pipe.close()


def test_without_the_sdk_the_command_says_what_to_install(
    invoke: Callable[..., Any], indexed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "imgsearch.web.assistants", None)
    monkeypatch.delitem(sys.modules, "imgsearch.web.assistants")
    monkeypatch.setitem(sys.modules, "mcp.server.mcpserver", None)
    ended = invoke("mcp", "-c", indexed)
    assert ended.exit_code == 6
    assert "pip install '.[mcp]'" in ended.stderr
