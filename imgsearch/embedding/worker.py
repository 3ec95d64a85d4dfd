"""A worker process that hashes images, and decodes and embeds those that are wanted.

`imgsearch.embedding.pipeline` starts it as
``python -m imgsearch.embedding.worker SIZE PIXELS MEMORY [MODEL DIM TRUST]``. The arguments are the
edge of the network's input, the maximum pixels of an image, and the maximum bytes for decoding it;
then the network, the length of an embedding, and the networks that the user trusts: "any", or only
our "own". Without MODEL it answers with pixels instead of embeddings, for a pipeline that runs a
GPU. With a single number as its argument, it examines single images instead, with its niceness
raised by that number: see `imgsearch.embedding.decoder`.
"""

from __future__ import annotations

import ctypes
import os
import queue
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt

from imgsearch.embedding.looking import look, look_of
from imgsearch.embedding.wire import receive, send, send_error
from imgsearch.errors import ImageError, ImgsearchError
from imgsearch.images.decode import ImageFile, Pixels
from imgsearch.images.fingerprint import Fingerprint
from imgsearch.images.limits import Limits, limit_log, limit_memory, memory_in_use, pillow_allows

if TYPE_CHECKING:
    from imgsearch.embedding.runtime import OnnxRuntime

__all__ = ["main"]

PR_SET_PDEATHSIG = 1  # From Linux's sys/prctl.h.

KEPT = 96 << 20  # Bytes that a process that examines single images may retain.

RUN = 2  # Images per run of the model; more was slower on one thread (docs/performance.md).

Messages: TypeAlias = "queue.SimpleQueue[dict[str, Any]]"


def main() -> None:
    """Serve requests from stdin until it closes."""
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent handles Ctrl-C and stops us.
    warnings.simplefilter("ignore")  # Decoders warn about odd files, which we accept or refuse.
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # Keep libraries' output out of the answers.
    if len(sys.argv) == 2:
        os.nice(int(sys.argv[1]))
        _look_on(requests, answers)
        return
    input_size, max_pixels, memory = map(int, sys.argv[1:4])
    try:
        runtime = _open_model(sys.argv[4:], input_size, memory) if len(sys.argv) > 4 else None
    except ImgsearchError as error:
        send_error(answers, error)
        return
    messages = _messages_of(requests)
    send(answers, {"ready": True})
    limit_memory(memory)
    limit_log()
    decode = partial(ImageFile.described, input_size=input_size, limits=Limits(max_pixels))
    with pillow_allows(max_pixels):
        while True:
            _answer(messages.get()["paths"], decode, runtime, messages, answers)


def _die_with_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends; only on Linux.

    A decoder that holds the GIL, or a stopped process, would not notice by itself.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _look_on(requests: BinaryIO, answers: BinaryIO) -> None:
    """Examine one image after another, and exit once decoders have retained much memory."""
    messages = _messages_of(requests)
    send(answers, {"ready": True})
    limit_log()
    most = memory_in_use() + KEPT
    last = False
    while not last:
        message = messages.get()
        facts, data = look(look_of(message["look"]), message.pop("data"))
        last = memory_in_use() > most
        send(answers, {"looked": facts, "last": last}, data)


def _messages_of(requests: BinaryIO) -> Messages:
    """Return a queue of the messages sent from now on, whose bytes are in the field `data`."""
    messages: Messages = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests, messages), daemon=True).start()
    return messages


def _open_model(arguments: list[str], input_size: int, memory: int) -> OnnxRuntime:
    # Imported here, as a process that examines single images does not need it and must start fast.
    from imgsearch.embedding.models import Shapes
    from imgsearch.embedding.runtime import MODEL_MEMORY, open_limited

    model, dim, trust = arguments
    shapes = Shapes(input_size, int(dim))
    more = MODEL_MEMORY + memory
    return open_limited(Path(model), shapes, threads=1, trust=trust == "any", memory=more)


def _listen(requests: BinaryIO, messages: Messages) -> None:
    """Pass messages on; exit at once when the parent ends, even in the middle of a file."""
    try:
        while True:
            message, data = receive(requests)
            messages.put({**message, "data": data})
            del message, data
    except EOFError:
        os._exit(0)


def _answer(
    paths: list[str],
    decode: Callable[[ImageFile], tuple[Pixels, Fingerprint]],
    runtime: OnnxRuntime | None,
    messages: Messages,
    answers: BinaryIO,
) -> None:
    replies: list[dict[str, Any]] = []
    arrays: list[npt.NDArray[Any]] = []
    prints: list[Fingerprint] = []
    with ExitStack() as opened:
        files = _open(paths, opened, answers)
        wanted = _ask(files, messages, answers)
        for index, file in enumerate(files):
            if wanted[index] and isinstance(file, ImageFile):
                send(answers, {"begin": index})
                try:
                    pixels, fingerprint = decode(file)
                except ImageError as error:
                    file = error
                else:
                    arrays.append(pixels)
                    prints.append(fingerprint)
                    shot = {"taken": fingerprint.taken, "camera": fingerprint.camera}
                    replies.append({**_reply(file, wanted=True), **shot})
                    continue
            replies.append(_reply(file, wanted=wanted[index]))
    if arrays and runtime is not None:
        send(answers, {"begin": None})
        runs = range(0, len(arrays), RUN)
        rows = np.concatenate([runtime.embed(np.stack(arrays[at : at + RUN])) for at in runs])
        arrays = list(rows)
    data = b"".join([*(array.tobytes() for array in arrays), *(each.row for each in prints)])
    send(answers, {"replies": replies}, data)


def _open(paths: list[str], opened: ExitStack, answers: BinaryIO) -> list[ImageFile | ImageError]:
    """Open and hash each file; `opened` closes them."""
    files: list[ImageFile | ImageError] = []
    for index, path in enumerate(paths):
        send(answers, {"begin": index})
        try:
            files.append(opened.enter_context(ImageFile(path)))
        except ImageError as error:
            files.append(error)
    return files


def _ask(files: list[ImageFile | ImageError], messages: Messages, answers: BinaryIO) -> list[bool]:
    """Ask the pipeline which files it wants embedded, and return one boolean per file."""
    digests = [file.digest.hex() if isinstance(file, ImageFile) else None for file in files]
    if not any(digests):
        return [False] * len(files)
    send(answers, {"digests": digests})
    wanted: list[bool] = messages.get()["wanted"]
    return wanted


def _reply(file: ImageFile | ImageError, *, wanted: bool) -> dict[str, Any]:
    if isinstance(file, ImageError):
        return {
            "reason": file.reason,
            "recognised": file.recognised,
            "transient": file.transient,
            "limited": file.limited,
        }
    return {
        "digest": file.digest.hex(),
        "size": file.size,
        "mtime_ns": file.mtime_ns,
        "wanted": wanted,
    }


if __name__ == "__main__":
    main()
