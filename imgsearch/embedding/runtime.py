"""Run a model: uint8 pixels in, L2-normalised float32 embeddings out.

ONNX Runtime on a CPU, torch on a GPU; torch is imported inside functions only.
"""

from __future__ import annotations

import ctypes
import platform
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from imgsearch.embedding.models import Network, build, fold_normalisation
from imgsearch.embedding.onnx.check import MOST_BYTES, Shapes, check_model
from imgsearch.embedding.onnx.protobuf import ForeignError, MalformedError
from imgsearch.embedding.onnx.session import SessionError, open_session
from imgsearch.embedding.onnx.trusted import TRUSTED_BYTES, check_no_files
from imgsearch.embedding.weights import find_weights, read_state
from imgsearch.errors import (
    REPAIR_IT,
    DamagedError,
    ModelError,
    StorageError,
    UntrustedModelError,
    reason_of,
)
from imgsearch.files.opening import read_limited
from imgsearch.images.decode import Pixels
from imgsearch.images.limits import limit_memory

if TYPE_CHECKING:
    import torch

__all__ = [
    "AT_ONCE",
    "MODEL_MEMORY",
    "Embeddings",
    "OnnxRuntime",
    "ParallelRuntime",
    "Runtime",
    "TorchRuntime",
    "open_limited",
    "pick_device",
    "torch_devices",
]

Embeddings: TypeAlias = npt.NDArray[np.float32]

#: Bytes that a process may use to load and run a foreign model.
MODEL_MEMORY = 2 << 30

#: Calls of `TorchRuntime.embed` that a GPU works on at once: one is copied, one is computed.
AT_ONCE = 2

_CUDNN = threading.Lock()

RUN = 128  # images a run of the model on a GPU: more need more memory, and are hardly faster


class Runtime(Protocol):
    """What turns pixels into embeddings, on so many `devices` at once."""

    devices: int

    def embed(self, pixels: Pixels) -> Embeddings:
        """Map uint8 `[n, input_size, input_size, 3]` to float32 `[n, dim]`, L2-normalised."""
        ...


class OnnxRuntime:
    """A model on the CPU. `embed` may be called from several threads at once.

    Attributes:
        input_size: edge in pixels of the images that it takes.
        dim: length of the embeddings that it gives.
    """

    devices = 1

    def __init__(
        self,
        model: Path,
        *,
        threads: int = 0,
        shapes: Shapes | None = None,
        trusted: bool = False,
    ) -> None:
        """Load `model` (an ONNX file of `imgsearch.embedding.models.export_onnx`).

        Args:
            model: The file.
            threads: Threads that run one call; 0 for one per core.
            shapes: What the catalog says of it, if it does.
            trusted: Load a model of anybody else, too. It may do what it likes with the time and
                the memory of this process, though not with files: only for a process that is
                limited and can be killed (`imgsearch.embedding.confined`). It takes `shapes`.

        Raises:
            DamagedError: It is missing, a link, not an ONNX model, or not the one of the catalog.
            StorageError: It cannot be read.
            UntrustedModelError: imgsearch did not export it.
        """
        self._model = model
        serialised = _read(model, TRUSTED_BYTES if trusted else MOST_BYTES)
        try:
            if trusted and shapes is not None:
                check_no_files(serialised)
                found = shapes
            else:
                found = check_model(serialised)
        except MalformedError as error:
            raise DamagedError(f"{model} is no ONNX model, or is cut off; {REPAIR_IT}") from error
        except ForeignError as error:
            raise _refusal(model, str(error), trusted=trusted) from error
        if shapes not in (None, found):
            raise DamagedError(
                f"{model} maps {_in_words(found)}, and by the catalog it should map "
                f"{_in_words(shapes)}; {REPAIR_IT}"
            )
        self.input_size, self.dim = found.input_size, found.dim
        try:
            self._session = open_session(serialised, threads=threads)
        except SessionError as error:
            if trusted:
                raise ModelError(f"{model} cannot be loaded: {error}") from error
            raise DamagedError(f"{model} is no ONNX model, or is cut off; {REPAIR_IT}") from error
        if trusted:
            self.embed(np.zeros((1, self.input_size, self.input_size, 3), np.uint8))

    def close(self) -> None:
        """Do nothing: unlike a foreign model's, there is no process to be ended."""

    def embed(self, pixels: Pixels) -> Embeddings:
        """Map uint8 `[n, input_size, input_size, 3]` to float32 `[n, dim]`, L2-normalised.

        Raises:
            ModelError: The model fails, or gives something else.
        """
        try:
            result: Embeddings = self._session.run(["embedding"], {"pixels": pixels})[0]
        except Exception as error:  # ONNX Runtime's own exceptions derive from Exception alone
            raise ModelError(f"{self._model} cannot be run: {reason_of(error)[:200]}") from error
        if (
            getattr(result, "dtype", None) != np.float32
            or result.shape != (len(pixels), self.dim)
            or not np.isfinite(result).all()
        ):
            raise ModelError(f"{self._model} does not give embeddings of {self.dim} numbers")
        return result


def open_limited(
    model: Path, shapes: Shapes, *, threads: int, trust: bool, memory: int
) -> OnnxRuntime:
    """Open a model, foreign ones only if the user trusts them, in a process that can be killed.

    Args:
        model: The file.
        shapes: What the catalog says of it.
        threads: Threads that run one call; 0 for one per core.
        trust: Whether a foreign one may be run.
        memory: Bytes that this process may use from then on if it is one.

    Raises:
        DamagedError: It is missing, is not an ONNX model, or not the one of the catalog.
        ModelError: It refers to other files, or cannot be run.
        StorageError: It cannot be read.
        UntrustedModelError: It is a foreign one.
    """
    try:
        return OnnxRuntime(model, threads=threads, shapes=shapes)
    except UntrustedModelError:
        if not trust:
            raise
    limit_memory(memory)
    return OnnxRuntime(model, threads=threads, shapes=shapes, trusted=True)


def _refusal(model: Path, reason: str, *, trusted: bool) -> ModelError:
    if trusted:
        return ModelError(f"{model} has {reason}, and no model may read other files than its own")
    return UntrustedModelError(
        f"{model} was not exported by imgsearch (it has {reason}); if you trust whoever made it, "
        "--trust-model runs it in a process of its own, with limits of time and memory"
    )


def _read(model: Path, most: int) -> bytes:
    try:
        return read_limited(model, most)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DamagedError(f"{model} cannot be read ({reason_of(error)}); {REPAIR_IT}") from error
    except OSError as error:
        raise StorageError(f"cannot read {model}: {reason_of(error)}") from error


def _in_words(shapes: Shapes | None) -> str:
    size, dim = (shapes.input_size, shapes.dim) if shapes else (0, 0)
    return f"images of {size} x {size} pixels to {dim} numbers"


class TorchRuntime:
    """A model on a GPU, in full precision. `embed` may be called from several threads at once.

    Calls overlap: the pixels of one are copied to the GPU while it computes another. A single
    thread starts all that the GPU does, in batches of the same size: for each thread, and for each
    size, cuDNN would spend seconds on preparing every convolution anew.
    """

    devices = 1

    def __init__(self, network: Network, weights: str, sha256: str, device: str) -> None:
        """Build the network on `device` ("cuda", "cuda:1", "mps" or "cpu").

        Args:
            network: its registry row.
            weights: the name of their source (see `imgsearch.embedding.weights`).
            sha256: what the collection recorded of them, so that the embeddings are comparable.
            device: a torch device.

        Raises:
            ModelError: the weights are not there, they are not those of the collection, or the
                device fails.
        """
        import torch

        cuda: Any = torch.cuda
        found = find_weights(network, weights)
        if found.sha256 != sha256:
            raise ModelError(
                f"{found.path} has changed since the collection was made with it; "
                "restore it, or use --device cpu, which runs the collection's own copy"
            )
        module: Any = build(network, read_state(network, found), source=found.name)
        fold_normalisation(module)
        self._dim = network.dim
        self._device = torch.device(device)
        self._thread = ThreadPoolExecutor(1)
        self._copying: Any = None
        with self._errors():
            self._module = module.to(self._device)
            if self._device.type == "cuda":
                self._copying = cuda.Stream(self._device)

    def embed(self, pixels: Pixels) -> Embeddings:
        """Map uint8 `[n, input_size, input_size, 3]` to float32 `[n, dim]`, L2-normalised.

        Raises:
            ModelError: The device fails, such as for want of memory, or what the model gives is
                not finite.
        """
        import torch

        with self._errors():
            inputs = torch.from_numpy(np.ascontiguousarray(pixels))
            if self._copying is not None:
                inputs = inputs.pin_memory()
            rows, wait = self._thread.submit(self._start, inputs).result()
            wait()
        result: Embeddings = rows.numpy().copy()  # it is pinned, and may be kept for long
        if not np.isfinite(result).all():
            raise ModelError(f"the model does not give embeddings of {self._dim} numbers")
        return result

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Map pixels that are on the device to embeddings that are; for one thread only."""
        import torch

        run = RUN if len(pixels) > 1 else 1
        lacking = -len(pixels) % run if self._copying is not None else 0
        padded = torch.nn.functional.pad(pixels, (0, 0, 0, 0, 0, 0, 0, lacking))
        with _float32_as_it_is():
            rows = torch.cat([self._module(part) for part in torch.split(padded, run)])
        return rows[: len(pixels)]

    def _start(self, pixels: torch.Tensor) -> tuple[torch.Tensor, Callable[[], None]]:
        """Return embeddings that may be still to come, and a function that waits for them."""
        import torch

        cuda: Any = torch.cuda
        with torch.inference_mode():
            if self._copying is None:
                return self.forward(pixels.to(self._device)).cpu(), lambda: None
            with cuda.stream(self._copying):
                inputs = pixels.to(self._device, non_blocking=True)
            computing = cuda.current_stream(self._device)
            computing.wait_stream(self._copying)
            inputs.record_stream(computing)
            rows = self.forward(inputs).to("cpu", non_blocking=True)
            copied = cuda.Event()
            copied.record(computing)
            return rows, copied.synchronize

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn what torch says about the device into a `ModelError`."""
        try:
            yield
        except RuntimeError as error:  # the base of all that torch raises for a device
            lines = str(error).strip().splitlines() or [type(error).__name__]
            reason = lines[0][:200]  # what follows is advice for programmers
            raise ModelError(
                f"{self._device} cannot run the model: {reason}; use --device cpu"
            ) from error


@contextmanager
def _float32_as_it_is() -> Iterator[None]:
    """Keep cuDNN from rounding what convolutions are given to 10 bits (TF32), its default.

    With TF32, as with half precision, embeddings differ from a CPU's by more than 1e-3:
    docs/decisions/0016. The setting is of the whole process, so it is put back, and what starts
    work on one GPU waits for what starts it on another.
    """
    import torch

    with _CUDNN, torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


class ParallelRuntime:
    """The same model on several GPUs, each of which embeds its part of a batch."""

    def __init__(self, runtimes: Sequence[Runtime]) -> None:
        """Use `runtimes`, one a GPU, each of which may be called from several threads at once."""
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
