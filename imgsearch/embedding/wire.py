"""The messages between the pipeline and its worker processes.

A message is a line of JSON followed by raw bytes, whose number is its field `bytes`. A request is
`{"paths": [...]}`. The worker sends `{"ready": true}` once it has loaded its model, and then, for
each request:

- `{"begin": i}` before it opens and hashes file i;
- `{"digests": [...]}`, in hexadecimal, or null for files that it refuses; the pipeline answers
  `{"wanted": [...]}`, true for each file to embed. Both are omitted if it refuses all files;
- `{"begin": i}` again before it decodes file i, and `{"begin": null}` before it runs the model;
- `{"replies": [...]}` with one reply per path, in order, and the arrays of those that succeeded,
  followed by their fingerprints, rows of `imgsearch.images.fingerprint.FINGERPRINT`.

A reply holds either `reason`, `recognised`, `transient` and `limited` of a refusal, or `digest`,
`size`, `mtime_ns` (null if it cannot be trusted) and `wanted`, which tells whether the reply has an
array; if so, `taken` and `camera` are those of its fingerprint.

A worker that examines single images is sent `{"look": {...}}` instead, with the fields of
`imgsearch.embedding.looking.Look`, and with the content of the image as bytes unless there is a
path. It answers `{"looked": {...}}`, with the requested bytes or with a refusal.
"""

from __future__ import annotations

import json
import shutil
from typing import IO, Any, BinaryIO

from imgsearch import errors

__all__ = ["raise_error", "receive", "send", "send_error", "send_file"]


def send(stream: IO[bytes], message: dict[str, Any], data: bytes | memoryview = b"") -> None:
    """Write one message; file names that are not UTF-8 are sent as `os.fsdecode` decoded them."""
    stream.write(json.dumps({**message, "bytes": len(data)}).encode("ascii") + b"\n")
    stream.write(data)
    stream.flush()


def send_file(stream: IO[bytes], message: dict[str, Any], file: BinaryIO, size: int) -> None:
    """Write one message whose bytes are the whole content of an open file."""
    file.seek(0)
    stream.write(json.dumps({**message, "bytes": size}).encode("ascii") + b"\n")
    shutil.copyfileobj(file, stream, 1 << 18)
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    """Read one message and its bytes.

    Raises:
        EOFError: If the other side has ended.
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
    """Raise the exception that a message carries, if any."""
    if "error" in message:
        raise getattr(errors, message["error"])(message["text"])
