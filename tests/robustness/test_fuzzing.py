"""Labels, a configuration file and requests, whatever they hold: used, or refused; no more."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imgsearch.cli import main
from imgsearch.cli.config import commands_of
from imgsearch.errors import InputError
from imgsearch.evaluation.labels import read_labels
from imgsearch.web.options import ServerOptions
from tests.support.depth import Harm
from tests.web.serving import listening

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0  # seconds


def fuzz(count: int) -> settings:
    """Return settings that try `count` examples, however long each takes to draw."""
    return settings(max_examples=count, suppress_health_check=[HealthCheck.too_slow])


# Labels

_CELLS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["path", "label", "a.jpg", "/", "..", "~", "~nobody", "file:///a", "s3://b/c"]),
)


def test_any_labels_are_read_or_refused(harm: Harm, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"

    @fuzz(harm.times(100, 4_000, fast=4))
    @given(content=st.one_of(st.binary(max_size=200), _csv()))
    def read(content: bytes) -> None:
        labels.write_bytes(content)
        try:
            found = read_labels(labels)
        except InputError:
            pass
        else:
            assert all(each.label for each in found)
        harm.done("files of labels")

    read()


@st.composite
def _csv(draw: st.DrawFn) -> bytes:
    header = draw(st.sampled_from(["path,label", "label,path,more", "path;label", "path", ""]))
    rows = draw(st.lists(st.lists(_CELLS, max_size=4), max_size=6))
    separator, end = draw(st.sampled_from(",;\t")), draw(st.sampled_from(["\n", "\r\n", "\r"]))
    text = end.join([header, *(separator.join(row) for row in rows)])
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]))
    return text.encode(encoding, "surrogatepass")


@pytest.mark.parametrize(
    "content",
    [
        b'path,label\n"' + b"a" * 1_000_000 + b'",b\n',
        b'path,label\n"a\n' * 1_000,
        b"path,label\n" + b"," * 1_000_000,
        b"path,label\n\0,\0\n",
    ],
    ids=["a huge cell", "quotes never closed", "a million columns", "NUL"],
)
def test_labels_that_no_reader_likes_are_refused(content: bytes, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_labels(labels)
    assert "\n" not in str(caught.value)


def test_labels_without_an_end_are_refused() -> None:
    with pytest.raises(InputError, match="has more than 268,435,456 bytes"):
        read_labels("/dev/zero")


# Configuration

_VALUES = st.one_of(
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["", "\0", "/dev/null", "~", "-", "a\nb", "0,0,1,1", "1e999"]),
    st.lists(st.one_of(st.text(max_size=4), st.integers(), st.floats()), max_size=5),
)


def test_any_configuration_is_heeded_or_refused(harm: Harm, tmp_path: Path) -> None:
    @fuzz(harm.times(60, 1_200, fast=4))
    @given(content=st.one_of(st.binary(max_size=100), _toml()))
    def heed(content: bytes) -> None:
        for command in (["info", "--settings"], ["query", str(tmp_path / "none.jpg")]):
            result = _configured(content, command, tmp_path)
            assert result.exit_code in (0, 2, 3), result.output
        harm.done("configuration files")

    heed()


@st.composite
def _toml(draw: st.DrawFn) -> bytes:
    """Draw a file of our own options, each with any value."""
    tables = {
        name: [max(option.opts, key=len).lstrip("-") for option in command.params if option.opts]
        for name, command in commands_of(main).items()
    }
    lines = []
    for table in draw(st.lists(st.sampled_from(sorted(tables)), unique=True, max_size=3)):
        lines.append(f"[{table}]")
        for option in draw(st.lists(st.sampled_from(tables[table]), unique=True, max_size=3)):
            value = draw(_VALUES)
            text = json.dumps(value).replace("NaN", "nan").replace("Infinity", "inf")
            lines.append(f"{json.dumps(option)} = {text}")
    return "\n".join(lines).encode("utf-8", "replace")


@pytest.mark.parametrize(
    "content",
    [
        b"[query]\nk = " + b"[" * 100_000,
        b"[query]\nk = " + b"9" * 10_000,
        b"[query." + b"a." * 5_000 + b"b]\n",
        b"a" * 2_000_000,
    ],
    ids=["nested deeply", "a huge number", "a deep table", "two megabytes"],
)
def test_a_configuration_that_no_reader_likes_is_refused(content: bytes, tmp_path: Path) -> None:
    result = _configured(content, ["info", "--settings"], tmp_path)
    assert result.exit_code == 2, result.output


def _configured(content: bytes, command: list[str], folder: Path) -> Result:
    (folder / "config.toml").write_bytes(content)
    arguments = ["--config", str(folder / "config.toml"), "-c", str(folder / "no collection")]
    return CliRunner().invoke(main, [*arguments, *command], catch_exceptions=False)


# Requests

_REQUESTS = (
    b"GET /api/v1/info HTTP/1.1\r\nConnection: close\r\nHost: 127.0.0.1\r\n\r\n",
    b"GET /api/v1/images?after=0&limit=5 HTTP/1.1\r\nConnection: close\r\nHost: localhost\r\n\r\n",
    b"GET /api/v1/images/1/thumbnail?size=64 HTTP/1.1\r\nConnection: close\r\nHost: localhost\r\n"
    b"Range: bytes=0-5\r\n\r\n",
    b"POST /api/v1/query HTTP/1.1\r\nConnection: close\r\nHost: localhost\r\n"
    b"Content-Type: multipart/form-data; "
    b'boundary=b\r\nContent-Length: 81\r\n\r\n--b\r\nContent-Disposition: form-data; name="like"'
    b"\r\n\r\n1\r\n--b--\r\n",
)


@pytest.fixture
def port(indexed: Path) -> Iterator[int]:
    with listening(indexed, ServerOptions()) as port:
        yield port


def test_any_request_is_answered_or_hung_up_on(port: int, harm: Harm) -> None:
    @fuzz(harm.times(40, 2_000, fast=10))
    @given(data=st.data())
    def ask(data: st.DataObject) -> None:
        request = bytearray(data.draw(st.sampled_from(_REQUESTS)))
        for _ in range(data.draw(st.integers(1, 4))):
            _spoil(request, data)
        answer = _answer(port, bytes(request))
        assert not answer.startswith(b"HTTP/1.1 5") or answer.startswith(b"HTTP/1.1 503"), answer
        assert b"Traceback" not in answer
        harm.done("requests")

    ask()
    assert _answer(port, _REQUESTS[0], PATIENCE).startswith(b"HTTP/1.1 200 ")


def _spoil(request: bytearray, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(request)))
    words = st.sampled_from([b"\r\n", b"\0", b":", b"%00", b"..", b"-1", b"9" * 30, b"\xff", b" "])
    match data.draw(st.sampled_from(["byte", "cut", "double", "insert", "word"])):
        case "byte" if at < len(request):
            request[at] = data.draw(st.integers(0, 255))
        case "cut":
            del request[at : at + data.draw(st.integers(1, 20))]
        case "double":
            request[at:at] = request[at : at + data.draw(st.integers(1, 60))]
        case "insert":
            request[at:at] = data.draw(st.binary(max_size=10))
        case _:
            request[at:at] = data.draw(words)


def _answer(port: int, request: bytes, patience: float = 0.3) -> bytes:
    """Send bytes, and return what comes back until the end, or until nothing comes any more."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        answer = b""
        with suppress(ConnectionResetError, BrokenPipeError, TimeoutError):
            connection.sendall(request)
            connection.settimeout(patience)
            while more := connection.recv(65_536):
                answer += more
        return answer
