"""What even a model that the user trusts may not do: read files other than its own."""

from __future__ import annotations

from typing import Any

from imgsearch.embedding.onnx.protobuf import ForeignError, MalformedError

__all__ = ["TRUSTED_BYTES", "check_no_files"]

TRUSTED_BYTES = (2 << 30) - 1  # of a file: a protocol buffer cannot have more


def check_no_files(serialised: bytes) -> None:
    """Check that no tensor of a model, wherever it is, has its data in another file.

    Raises:
        MalformedError: it is no ONNX model.
        ForeignError: one has.
    """
    import onnx

    try:
        model = onnx.load_model_from_string(serialised)
    except Exception as error:  # protobuf's own, of which mypy knows no types
        raise MalformedError from error
    _check(model)


def _check(message: Any) -> None:
    """Look at a message and at all that are in it, whatever their fields are called."""
    for field, value in message.ListFields():
        if field.name in ("external_data", "data_location") and value:
            raise ForeignError("a tensor whose data is in another file")
        if field.message_type is not None:
            for part in (value,) if hasattr(value, "ListFields") else value:
                _check(part)
