"""Run a model: uint8 pixels in, L2-normalised float32 embeddings out.

ONNX Runtime on a CPU, torch on a GPU; torch is imported inside functions only.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from imgsearch.embedding.images import Pixels
from imgsearch.embedding.models import Network, build
from imgsearch.embedding.weights import find_weights, read_state
from imgsearch.errors import MEND, DamagedError, ModelError, StorageError, reason_of

if TYPE_CHECKING:
    import torch

__all__ = [
    "Embeddings",
    "OnnxRuntime",
    "ParallelRuntime",
    "Runtime",
    "TorchRuntime",
    "pick_device",
    "torch_devices",
]

Embeddings: TypeAlias = npt.NDArray[np.float32]


class Runtime(Protocol):
    """What turns pixels into embeddings, on so many `devices` at once."""

    devices: int

    def embed(self, pixels: Pixels) -> Embeddings:
        """Map uint8 `[n, input_size, input_size, 3]` to float32 `[n, dim]`, L2-normalised."""
        ...


class OnnxRuntime:
    """A model on the CPU. `embed` may be called from several threads at once."""

    devices = 1

    def __init__(self, model: Path, *, threads: int = 0) -> None:
        """Load `model` (an ONNX file of `imgsearch.embedding.models.export_onnx`).

        Args:
            model: the file.
            threads: how many run one call; 0 for one a core.

        Raises:
            DamagedError: it is missing or is no ONNX model.
            StorageError: it cannot be read.
        """
        import onnxruntime

        try:
            serialised = model.read_bytes()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise DamagedError(f"{model} cannot be read ({reason_of(error)}); {MEND}") from error
        except OSError as error:
            raise StorageError(f"cannot read {model}: {reason_of(error)}") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4
        # Spinning threads would take the cores from Faiss and from the other workers.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(
                serialised, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's own exceptions derive from Exception alone
            raise DamagedError(f"{model} is no ONNX model, or is cut off; {MEND}") from error

    def embed(self, pixels: Pixels) -> Embeddings:
        """Map uint8 `[n, input_size, input_size, 3]` to float32 `[n, dim]`, L2-normalised."""
        result: Embeddings = self._session.run(["embedding"], {"pixels": pixels})[0]
        return result


class TorchRuntime:
    """A model on a GPU: channels_last, half precision where autocast deems it safe."""

    devices = 1

    def __init__(self, network: Network, weights: str, sha256: str, device: str) -> None:
        """Build the network on `device` ("cuda", "cuda:1", "mps" or "cpu").

        Args:
            network: its registry row.
            weights: the name of their source (see `imgsearch.embedding.weights`).
            sha256: what the collection recorded of them, so that the embeddings are comparable.
            device: a torch device.

        Raises:
            ModelError: the weights are not there, or they are not those of the collection.
        """
        import torch

        found = find_weights(network, weights)
        if found.sha256 != sha256:
            raise ModelError(
                f"{found.path} has changed since the collection was made with it; "
                "restore it, or use --device cpu, which runs the collection's own copy"
            )
        module: Any = build(network, read_state(network, found), source=found.name)
        self._device = torch.device(device)
        self._module = module.to(self._device).to(memory_format=torch.channels_last)

    def embed(self, pixels: Pixels) -> Embeddings:
        """Map uint8 `[n, input_size, input_size, 3]` to float32 `[n, dim]`, L2-normalised."""
        import torch

        # NHWC memory seen as NCHW is channels_last already: the module permutes, nothing is copied.
        inputs: torch.Tensor = torch.from_numpy(np.ascontiguousarray(pixels)).to(self._device)
        half = self._device.type != "cpu"
        with torch.inference_mode(), torch.autocast(self._device.type, torch.float16, enabled=half):
            output: Embeddings = self._module(inputs).float().cpu().numpy()
        return output


class ParallelRuntime:
    """The same model on several GPUs, each of which embeds its part of a batch."""

    def __init__(self, runtimes: Sequence[Runtime]) -> None:
        """Use `runtimes`, one a GPU; each is called by one thread at a time."""
        self.devices = len(runtimes)
        self._runtimes = runtimes

    def embed(self, pixels: Pixels) -> Embeddings:
        """Map uint8 `[n, input_size, input_size, 3]` to float32 `[n, dim]`, L2-normalised."""
        parts = np.array_split(pixels, min(self.devices, len(pixels)) or 1)
        with ThreadPoolExecutor(len(parts)) as threads:
            rows = threads.map(lambda runtime, part: runtime.embed(part), self._runtimes, parts)
            return np.concatenate(list(rows))


def torch_devices(device: str) -> list[str]:
    """Return the torch devices that are there of a kind: one name, but for several CUDA GPUs."""
    if device != "cuda":
        return [device]
    import torch

    return [f"cuda:{number}" for number in range(torch.cuda.device_count())]


def pick_device(device: str) -> str:
    """Turn "auto" into the best device that is there, and refuse one that is not.

    Raises:
        ModelError: `device` was named and is not there.
    """
    if device == "cpu" or (device == "auto" and not _may_have_gpu()):
        return "cpu"
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return next((name for name, available in there.items() if available), "cpu")
    if not there.get(device, False):
        raise ModelError(
            f"there is no {device} device that this torch ({torch.__version__}) can use; "
            "use --device cpu, or install the torch build and the driver that the device needs"
        )
    return device


def _may_have_gpu() -> bool:
    """Tell, without importing torch, whether asking torch could be worth its seconds."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True
