"""Run a model that maps uint8 pixels to L2-normalised float32 embeddings.

ONNX Runtime is used on a CPU and torch on a GPU. Either is imported only when a model is opened, as
is the check of an ONNX model.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from imgsearch.embedding.models import MODELS, Network, Shapes, build, fold_normalisation
from imgsearch.errors import (
    REPAIR_IT,
    DamagedError,
    ModelError,
    StorageError,
    UntrustedModelError,
    check_installed,
    is_installed,
    reason_of,
)
from imgsearch.files.opening import read_limited
from imgsearch.images.limits import limit_memory

if TYPE_CHECKING:
    import torch

    from imgsearch.embedding.confined import ConfinedRuntime
    from imgsearch.images.decode import Pixels

__all__ = [
    "AT_ONCE",
    "MODEL_MEMORY",
    "NO_TELEMETRY",
    "Embeddings",
    "OnnxRuntime",
    "ParallelRuntime",
    "Runtime",
    "TextRuntime",
    "TorchRuntime",
    "open_limited",
    "open_model",
    "pick_device",
    "run_once",
    "run_words",
    "torch_devices",
]

Embeddings: TypeAlias = npt.NDArray[np.float32]

#: Maximum bytes of memory for a process to load and run a foreign model.
MODEL_MEMORY = 2 << 30

#: Calls of `TorchRuntime.embed` that a GPU handles at once: one is copied, one is computed.
AT_ONCE = 2

#: The environment variable, and its value, that keep ONNX Runtime 1.29 and later from reporting to
#: its makers, and from storing an identifier of this machine below the user's cache. The library
#: reads it once, when it is loaded. It overrides the user's environment: that nothing leaves this
#: machine is a promise, not a default.
NO_TELEMETRY = ("ORT_DISABLE_TELEMETRY", "1")

_CUDNN = threading.Lock()

RUN = 128  # Images per run on a GPU; more would need more memory and be hardly faster.


class Runtime(Protocol):
    """An object that turns pixels into embeddings, on `devices` devices at once."""

    devices: int

    def embed(self, pixels: Pixels) -> Embeddings:
        """Map uint8 `[n, input_size, input_size, 3]` to float32 `[n, dim]`, L2-normalised."""
        ...


class OnnxRuntime:
    """A model on the CPU; several threads may call `embed` at once.

    Attributes:
        input_size: Edge of its input images in pixels.
        dim: Length of its embeddings.
    """

    devices = 1

    def __init__(
        self,
        model: Path,
        *,
        threads: int = 0,
        shapes: Shapes | None = None,
        trusted: bool = False,
        maps: bool = False,
    ) -> None:
        """Load `model`, an ONNX file made by `imgsearch.embedding.models.export_onnx`.

        Args:
            model: The ONNX file.
            threads: Number of threads for one call; 0 for one per core.
            shapes: Shapes of the model according to the catalog, if they are known.
            trusted: Whether to load a foreign model, too. Such a model may use up the time and the
                memory of this process, though it cannot access files: allow it only in a process
                that is limited and can be killed (`imgsearch.embedding.confined`). This requires
                `shapes`.
            maps: Whether `maps` will be called.

        Raises:
            DamagedError: If the file is missing, a link, not an ONNX model, or not the model that
                the catalog describes.
            ModelError: If `maps` is wanted, and the model does not end with a pooled feature map.
            StorageError: If the file cannot be read.
            UntrustedModelError: If imgsearch did not export the model.
        """
        from imgsearch.embedding.onnx.check import MOST_BYTES, check_model
        from imgsearch.embedding.onnx.protobuf import ForeignError, MalformedError
        from imgsearch.embedding.onnx.trusted import check_no_files

        self._model = model
        serialised = _read(model, MOST_BYTES)
        try:
            if trusted and shapes is not None:
                check_no_files(serialised)
                found = shapes
            else:
                found = check_model(serialised)
        except MalformedError as error:
            raise DamagedError(
                f"{model} is not an ONNX model, or is cut off; {REPAIR_IT}"
            ) from error
        except ForeignError as error:
            raise _refusal(model, str(error), trusted=trusted) from error
        if shapes not in (None, found):
            raise DamagedError(
                f"{model} maps {_in_words(found)}, but according to the catalog it should map "
                f"{_in_words(shapes)}; {REPAIR_IT}"
            )
        self.input_size, self.dim = found.input_size, found.dim
        if maps:
            serialised, self._map = _with_feature_map(model, serialised)
        try:
            self._session = _session(serialised, threads=threads)
        except _SessionError as error:
            if trusted:
                raise ModelError(f"{model} cannot be loaded: {error}") from error
            raise DamagedError(
                f"{model} is not an ONNX model, or is cut off; {REPAIR_IT}"
            ) from error
        if trusted:
            self.embed(np.zeros((1, self.input_size, self.input_size, 3), np.uint8))

    def close(self) -> None:
        """Do nothing: unlike a foreign model, this one has no process to end."""

    def embed(self, pixels: Pixels) -> Embeddings:
        """Map uint8 `[n, input_size, input_size, 3]` to float32 `[n, dim]`, L2-normalised.

        Raises:
            ModelError: If the model fails or returns anything other than such embeddings.
        """
        result: Embeddings = self._run(pixels, "embedding")[0]
        if (
            getattr(result, "dtype", None) != np.float32
            or result.shape != (len(pixels), self.dim)
            or not np.isfinite(result).all()
        ):
            raise ModelError(f"{self._model} does not give embeddings of {self.dim} numbers")
        return result

    def maps(self, pixels: Pixels) -> Embeddings:
        """Map uint8 `[n, input_size, input_size, 3]` to float32 `[n, rows, columns, dim]`.

        The mean over rows and columns, L2-normalised, is the embedding. The model must have been
        loaded with `maps`.

        Raises:
            ModelError: If the model fails, or its embedding is not the mean of its feature map.
        """
        embeddings, maps = self._run(pixels, "embedding", self._map)
        means = maps.mean(axis=(2, 3)) if maps.ndim == 4 else np.zeros((0, 0), np.float32)
        expected = means / np.maximum(np.linalg.norm(means, axis=-1, keepdims=True), 1e-12)
        if expected.shape != embeddings.shape or not np.allclose(expected, embeddings, atol=1e-4):
            raise _no_map(self._model, "an embedding that is not the mean of its feature map")
        return np.ascontiguousarray(np.moveaxis(maps, 1, -1))

    def _run(self, pixels: Pixels, *outputs: str) -> list[Any]:
        try:
            found: list[Any] = self._session.run(list(outputs), {"pixels": pixels})
        except Exception as error:  # ONNX Runtime's exceptions have no other base.
            raise ModelError(f"{self._model} cannot be run: {reason_of(error)[:200]}") from error
        return found


class TextRuntime:
    """A text tower on the CPU; several threads may call `embed` at once.

    Attributes:
        length: Number of tokens that it takes.
        metadata: The metadata of its file.
    """

    def __init__(self, model: Path, dim: int, *, threads: int = 0) -> None:
        """Load a text tower made by `imgsearch.embedding.clip.export_words`.

        Args:
            model: The ONNX file.
            dim: Length of an embedding according to the catalog.
            threads: Number of threads for one call; 0 for one per core.

        Raises:
            DamagedError: If the file is missing, not an ONNX model, or not the model that the
                catalog describes.
            StorageError: If the file cannot be read.
            UntrustedModelError: If imgsearch did not export the model.
        """
        from imgsearch.embedding.onnx.check import MOST_BYTES, check_words
        from imgsearch.embedding.onnx.protobuf import ForeignError, MalformedError

        self._model, self._dim = model, dim
        serialised = _read(model, MOST_BYTES)
        try:
            self.length, found = check_words(serialised)
            self._session = _session(serialised, threads=threads)
        except (MalformedError, _SessionError) as error:
            raise DamagedError(
                f"{model} is not an ONNX model, or is cut off; {REPAIR_IT}"
            ) from error
        except ForeignError as error:
            raise UntrustedModelError(
                f"{model} was not exported by imgsearch (it has {error}), so it is not run; "
                "search with images instead"
            ) from error
        if found != dim:
            raise DamagedError(
                f"{model} maps words to {found} numbers, but according to the catalog it should "
                f"map them to {dim}; {REPAIR_IT}"
            )
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map

    def embed(self, tokens: npt.NDArray[np.int64], end: npt.NDArray[np.int64]) -> Embeddings:
        """Map int64 `[1, length]` and the place of the last token, `[1]`, to float32 `[1, dim]`.

        Raises:
            ModelError: If the model fails or returns anything other than such an embedding.
        """
        try:
            given = {"tokens": tokens, "end": end}
            result: Embeddings = self._session.run(["embedding"], given)[0]
        except Exception as error:  # ONNX Runtime's exceptions have no other base.
            raise ModelError(f"{self._model} cannot be run: {reason_of(error)[:200]}") from error
        if result.shape != (1, self._dim) or not np.isfinite(result).all():
            raise ModelError(f"{self._model} does not give an embedding of {self._dim} numbers")
        return result


def open_model(
    model: Path, shapes: Shapes, *, threads: int = 0, trust: bool = False
) -> OnnxRuntime | ConfinedRuntime:
    """Open a collection's model on the CPU, in this process if imgsearch exported it.

    Args:
        model: The ONNX file.
        shapes: Shapes of the model according to the catalog.
        threads: Number of threads for one call; 0 for one per core.
        trust: Whether a foreign model may be run, in its own process.

    Raises:
        DamagedError: If the file is missing, not an ONNX model, or not the model that the catalog
            describes.
        StorageError: If the file cannot be read.
        UntrustedModelError: If the model is foreign and `trust` is false.
    """
    try:
        return OnnxRuntime(model, threads=threads, shapes=shapes)
    except UntrustedModelError:
        if not trust:
            raise
    from imgsearch.embedding.confined import ConfinedRuntime  # Our own models need no process.

    return ConfinedRuntime(model, shapes, threads=threads)


def open_limited(
    model: Path, shapes: Shapes, *, threads: int, trust: bool, memory: int
) -> OnnxRuntime:
    """Open a model in a process that can be killed; a foreign one only if the user trusts it.

    Args:
        model: The ONNX file.
        shapes: Shapes of the model according to the catalog.
        threads: Number of threads for one call; 0 for one per core.
        trust: Whether a foreign model may be run.
        memory: Maximum bytes of memory for this process from then on if the model is foreign.

    Raises:
        DamagedError: If the file is missing, not an ONNX model, or not the model that the catalog
            describes.
        ModelError: If the model refers to other files or cannot be run.
        StorageError: If the file cannot be read.
        UntrustedModelError: If the model is foreign and `trust` is false.
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
        return ModelError(f"{model} has {reason}, but a model may read no file other than its own")
    return UntrustedModelError(
        f"{model} was not exported by imgsearch (it has {reason}); if you trust whoever made it, "
        "--trust-model runs it in a process of its own, with limits on time and memory"
    )


def _with_feature_map(model: Path, serialised: bytes) -> tuple[bytes, str]:
    from imgsearch.embedding.onnx.feature_map import with_feature_map
    from imgsearch.embedding.onnx.protobuf import ForeignError

    try:
        return with_feature_map(serialised)
    except ForeignError as error:
        raise _no_map(model, str(error)) from error


def _no_map(model: Path, reason: str) -> ModelError:
    return ModelError(
        f"{model} has {reason}, so similarities cannot be explained; use a collection of "
        f"{', '.join(list(MODELS)[:-1])} or {list(MODELS)[-1]}"
    )


class _SessionError(Exception):
    """ONNX Runtime cannot load a model."""


def _session(serialised: bytes, *, threads: int) -> Any:
    """Return an `onnxruntime.InferenceSession` for a model on the CPU.

    Args:
        serialised: The model. It must not refer to other files, which
            `imgsearch.embedding.onnx.check` ensures; only these bytes are read.
        threads: Number of threads for one call; 0 for one per core.
    """
    onnxruntime = _onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    # Spinning threads would take the cores from Faiss and from the other workers.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(serialised, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no other base.
        raise _SessionError(reason_of(error)[:200]) from error


def run_once(serialised: bytes, outputs: list[str], images: int) -> list[npt.NDArray[Any]]:
    """Run a model that was just exported on images of noise, and return outputs by name."""
    session = _session(serialised, threads=0)
    _, *shape = session.get_inputs()[0].shape
    pixels = np.random.default_rng(0).integers(0, 256, (images, *shape), np.uint8)
    found: list[npt.NDArray[Any]] = session.run(outputs, {"pixels": pixels})
    return found


def run_words(serialised: bytes, outputs: list[str]) -> list[npt.NDArray[Any]]:
    """Run a text tower that was just exported on one token, and return outputs by name."""
    session = _session(serialised, threads=0)
    given = {each.name: np.zeros(each.shape, np.int64) for each in session.get_inputs()}
    found: list[npt.NDArray[Any]] = session.run(outputs, given)
    return found


def _onnxruntime() -> Any:
    name, value = NO_TELEMETRY
    os.environ[name] = value  # This calls putenv, so the C++ library sees it, too.
    import onnxruntime

    # Needed if a program that uses imgsearch as a library has already imported ONNX Runtime.
    onnxruntime.disable_telemetry_events()
    return onnxruntime


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
    """A model on a GPU, in full precision; several threads may call `embed` at once.

    Calls overlap: the pixels of one are copied to the GPU while it computes another. A single
    thread starts all work of the GPU, in batches of the same size: for each further thread or
    size, cuDNN would spend seconds preparing every convolution again.
    """

    devices = 1

    def __init__(self, network: Network, weights: str, sha256: str, device: str) -> None:
        """Build the network on `device` ("cuda", "cuda:1", "mps" or "cpu").

        Args:
            network: Registry row of the network.
            weights: Name of the source of the weights (see `imgsearch.embedding.weights`).
            sha256: SHA-256 of the weights as recorded in the collection, which makes the embeddings
                comparable.
            device: Name of a torch device.

        Raises:
            ModelError: If the weights are missing, differ from those of the collection, or the
                device fails.
        """
        from concurrent.futures import ThreadPoolExecutor

        import torch

        from imgsearch.embedding.weights import find_weights, read_state

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
            ModelError: If the device fails, for example because memory runs out, or if the
                embeddings are not finite.
        """
        import torch

        with self._errors():
            inputs = torch.from_numpy(np.ascontiguousarray(pixels))
            if self._copying is not None:
                inputs = inputs.pin_memory()
            rows, wait = self._thread.submit(self._start, inputs).result()
            wait()
        result: Embeddings = rows.numpy().copy()  # It is pinned, and callers may keep it for long.
        if not np.isfinite(result).all():
            raise ModelError(f"the model does not give embeddings of {self._dim} numbers")
        return result

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Map pixels on the device to embeddings on the device; only one thread may call this."""
        import torch

        run = RUN if len(pixels) > 1 else 1
        lacking = -len(pixels) % run if self._copying is not None else 0
        padded = torch.nn.functional.pad(pixels, (0, 0, 0, 0, 0, 0, 0, lacking))
        with _float32_as_it_is():
            rows = torch.cat([self._module(part) for part in torch.split(padded, run)])
        return rows[: len(pixels)]

    def _start(self, pixels: torch.Tensor) -> tuple[torch.Tensor, Callable[[], None]]:
        """Return embeddings that may not be complete yet, and a function that waits for them."""
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
        """Turn torch's errors about the device into a `ModelError`."""
        try:
            yield
        except RuntimeError as error:  # The base of all device errors of torch.
            lines = str(error).strip().splitlines() or [type(error).__name__]
            reason = lines[0][:200]  # The rest is advice for programmers.
            raise ModelError(
                f"{self._device} cannot run the model: {reason}; use --device cpu"
            ) from error


@contextmanager
def _float32_as_it_is() -> Iterator[None]:
    """Keep cuDNN from rounding the inputs of convolutions to 10 bits (TF32), its default.

    With TF32, as with half precision, embeddings differ from a CPU's by more than 1e-3:
    docs/decisions/0016. The setting applies to the whole process, so it is restored afterwards, and
    a thread that starts work on one GPU waits for a thread that starts it on another.
    """
    import torch

    with _CUDNN, torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


class ParallelRuntime:
    """The same model on several GPUs, each of which embeds a part of every batch."""

    def __init__(self, runtimes: Sequence[Runtime]) -> None:
        """Use `runtimes`, one per GPU, each of which several threads may call at once."""
        self.devices = len(runtimes)
        self._runtimes = runtimes

    def embed(self, pixels: Pixels) -> Embeddings:
        """Map uint8 `[n, input_size, input_size, 3]` to float32 `[n, dim]`, L2-normalised."""
        from concurrent.futures import ThreadPoolExecutor

        parts = np.array_split(pixels, min(self.devices, len(pixels)) or 1)
        with ThreadPoolExecutor(len(parts)) as threads:
            rows = threads.map(lambda runtime, part: runtime.embed(part), self._runtimes, parts)
            return np.concatenate(list(rows))


def torch_devices(device: str) -> list[str]:
    """Return the torch devices of a kind: one name each for several CUDA GPUs, otherwise one."""
    if device != "cuda":
        return [device]
    import torch

    return [f"cuda:{number}" for number in range(torch.cuda.device_count())]


def pick_device(device: str) -> str:
    """Turn "auto" into the best available device, and refuse a device that is unavailable.

    Raises:
        ModelError: If `device` was named explicitly and is unavailable.
        PackageError: If `device` was named explicitly, and torch is not installed.
    """
    if device == "cpu" or (device == "auto" and not (_may_have_gpu() and is_installed("torch"))):
        return "cpu"
    check_installed(f"--device {device}", "torch", "torchvision")
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
    """Tell, without importing torch, whether it is worth the seconds that asking torch takes."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True
