"""Open an ONNX model with ONNX Runtime: the one place that imports it, and keeps it silent."""

from __future__ import annotations

import os
from typing import Any

from imgsearch.errors import reason_of

__all__ = ["NO_TELEMETRY", "SessionError", "open_session"]

#: The environment variable, and its value, that keep ONNX Runtime 1.29 and later from reporting to
#: its makers, and from storing an identifier of this machine below the user's cache. It is read
#: once, when the library is loaded. It is set whatever the user's environment says: that nothing
#: leaves this machine is a promise, not a default.
NO_TELEMETRY = ("ORT_DISABLE_TELEMETRY", "1")


class SessionError(Exception):
    """Report that ONNX Runtime cannot load a model."""


def open_session(serialised: bytes, *, threads: int) -> Any:
    """Return an `onnxruntime.InferenceSession` of a model, on the CPU.

    Args:
        serialised: the model. Its bytes are all that is read: it must not refer to other files,
            which `imgsearch.embedding.onnx.check` makes sure of.
        threads: threads that run one call; 0 for one per core.

    Raises:
        SessionError: ONNX Runtime cannot load it.
    """
    onnxruntime = _import()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    # Spinning threads would take the cores from Faiss and from the other workers.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(serialised, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own exceptions derive from Exception alone
        raise SessionError(reason_of(error)[:200]) from error


def _import() -> Any:
    name, value = NO_TELEMETRY
    os.environ[name] = value  # os.environ calls putenv: the C++ library sees it, too
    import onnxruntime

    # Of use if the program that uses imgsearch as a library has imported ONNX Runtime before.
    onnxruntime.disable_telemetry_events()
    return onnxruntime
