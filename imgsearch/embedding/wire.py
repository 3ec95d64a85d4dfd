"""The messages between the pipeline and its worker processes.

A message is a line of JSON, followed by as many raw bytes as its `bytes` says. A request is
`{"paths": [...]}`. The worker says `{"ready": true}` once it has loaded its model; then, to each
request,

- `{"begin": i}` before it opens and hashes file i;
- `{"digests": [...]}`, in hexadecimal, null for files that it refuses; the pipeline answers with
  `{"wanted": [...]}`, true where the content is to be embedded. Left out if it refuses them all;
- `{"begin": i}` again before it decodes file i, `{"begin": null}` before it runs the model;
- `{"replies": [...]}` with one reply a path, in order, and the arrays of those that succeeded.

A reply holds `reason`, `recognised`, `transient` and `limited` of a refusal; or `digest`, `size`,
`mtime_ns` (null if it is not to be trusted) and `wanted`, which tells whether there is an array for
it.

A worker that is started to look at single images is sent `{"look": {...}}` instead, with the fields
of `imgsearch.embedding.looking.Look`, and the content of the image as bytes unless there is a path.
It says `{"looked": {...}}`, with the bytes of what was asked for or with a refusal.
"""

from __future__ import annotations

import json
import shutil
from typing import IO, Any, BinaryIO

from imgsearch import errors

__all__ = ["raise_error", "receive", "send", "send_error", "send_file"]


def send(stream: IO[bytes], message: dict[str, Any], data: bytes | memoryview = b"") -> None:
    """Write one message. File names that are not UTF-8 travel as `os.fsdecode` made them."""
    stream.write(json.dumps({**message, "bytes": len(data)}).encode("ascii") + b"\n")
    stream.write(data)
    stream.flush()


def send_file(stream: IO[bytes], message: dict[str, Any], file: BinaryIO, size: int) -> None:
    """Write one message whose bytes are those of an open file, from its beginning to its end."""
    file.seek(0)
    stream.write(json.dumps({**message, "bytes": size}).encode("ascii") + b"\n")
    shutil.copyfileobj(file, stream, 1 << 18)
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    """Read one message and its bytes.

    Raises:
        EOFError: the other side is gone.
    """
    line = stream.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    message: dict[str, Any] = json.loads(line)
    data = stream.read(message["bytes"])
    if len(data) != message["bytes"]:
        raise EOFError
    return message, data


def send_error(stream: IO[bytes], error: errors.ImgsearchError) -> None:
    """Write an exception as a message, for `raise_error` on the other side."""
    send(stream, {"error": type(error).__name__, "text": str(error)})


def raise_error(message: dict[str, Any]) -> None:
    """Raise the exception that a message carries, if it carries one."""
    if "error" in message:
        raise getattr(errors, message["error"])(message["text"])
