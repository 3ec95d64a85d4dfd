"""A worker process: decode a few images, run them through the model, answer, repeat.

Started by `imgsearch.embedding.pipeline` as ``python -m imgsearch.embedding.worker SIZE [MODEL]``;
without MODEL it answers with pixels instead of embeddings, for a pipeline that runs a GPU.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from imgsearch.embedding.images import Source, read
from imgsearch.embedding.runtime import OnnxRuntime
from imgsearch.embedding.wire import receive, send, send_error
from imgsearch.errors import ImageError, ImgsearchError

__all__ = ["main"]

RUN = 2  # images a run of the model: more was slower on one thread (docs/performance.md)


def main() -> None:
    """Serve requests from stdin until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which stops us
    warnings.simplefilter("ignore")  # decoders warn about odd files, which are accepted or refused
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not end up among the answers
    input_size = int(sys.argv[1])
    try:
        runtime = OnnxRuntime(Path(sys.argv[2]), threads=1) if len(sys.argv) > 2 else None
    except ImgsearchError as error:
        send_error(answers, error)
        return
    waiting: queue.SimpleQueue[list[str]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests, waiting), daemon=True).start()
    send(answers, {"ready": True})
    while True:
        _answer(waiting.get(), input_size, runtime, answers)


def _listen(requests: BinaryIO, waiting: queue.SimpleQueue[list[str]]) -> None:
    """Pass requests on; when the parent is gone, leave at once, even in the middle of a file."""
    try:
        while True:
            waiting.put(receive(requests)[0]["paths"])
    except EOFError:
        os._exit(0)


def _answer(
    paths: list[str], input_size: int, runtime: OnnxRuntime | None, answers: BinaryIO
) -> None:
    replies: list[dict[str, Any]] = []
    sources: list[Source] = []
    for index, path in enumerate(paths):
        send(answers, {"begin": index})
        try:
            source = read(path, input_size)
        except ImageError as error:
            replies.append(
                {
                    "reason": error.reason,
                    "recognised": error.recognised,
                    "transient": error.transient,
                }
            )
        else:
            replies.append(
                {"digest": source.digest.hex(), "size": source.size, "mtime_ns": source.mtime_ns}
            )
            sources.append(source)
    arrays = [source.pixels for source in sources]
    if arrays and runtime is not None:
        send(answers, {"begin": None})
        runs = range(0, len(arrays), RUN)
        rows = np.concatenate([runtime.embed(np.stack(arrays[at : at + RUN])) for at in runs])
        arrays = list(rows)
    data = b"".join(array.tobytes() for array in arrays)
    send(answers, {"replies": replies}, data)


if __name__ == "__main__":
    main()
