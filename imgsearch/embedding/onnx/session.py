"""Open ONNX models with ONNX Runtime; only this module imports it, and it keeps it silent."""

from __future__ import annotations

import os
from typing import Any

from imgsearch.errors import reason_of

__all__ = ["NO_TELEMETRY", "SessionError", "open_session"]

#: The environment variable, and its value, that keep ONNX Runtime 1.29 and later from reporting to
#: its makers, and from storing an identifier of this machine below the user's cache. The library
#: reads it once, when it is loaded. It overrides the user's environment: that nothing leaves this
#: machine is a promise, not a default.
NO_TELEMETRY = ("ORT_DISABLE_TELEMETRY", "1")


class SessionError(Exception):
    """ONNX Runtime cannot load a model."""


def open_session(serialised: bytes, *, threads: int) -> Any:
    """Return an `onnxruntime.InferenceSession` for a model on the CPU.

    Args:
        serialised: the model. It must not refer to other files, which
            `imgsearch.embedding.onnx.check` ensures; only these bytes are read.
        threads: number of threads for one call; 0 for one per core.

    Raises:
        SessionError: If ONNX Runtime cannot load the model.
    """
    onnxruntime = _import()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    # Spinning threads would take the cores from Faiss and from the other workers.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(serialised, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no other base.
        raise SessionError(reason_of(error)[:200]) from error


def _import() -> Any:
    name, value = NO_TELEMETRY
    os.environ[name] = value  # This calls putenv, so the C++ library sees it, too.
    import onnxruntime

    # Needed if a program that uses imgsearch as a library has already imported ONNX Runtime.
    onnxruntime.disable_telemetry_events()
    return onnxruntime
