"""Refuse models that read files other than their own, even if the user trusts them."""

from __future__ import annotations

from typing import Any

from imgsearch.embedding.onnx.protobuf import ForeignError, MalformedError
from imgsearch.errors import check_installed

__all__ = ["check_no_files"]


def check_no_files(serialised: bytes) -> None:
    """Check that no tensor anywhere in a model has its data in another file.

    Raises:
        MalformedError: If the bytes are not an ONNX model.
        ForeignError: If a tensor has its data in another file.
        PackageError: If onnx is not installed.
    """
    check_installed("checking a foreign model", "onnx")
    import onnx

    try:
        model = onnx.load_model_from_string(serialised)
    except Exception as error:  # One of protobuf's, for which mypy has no types.
        raise MalformedError from error
    _check(model)


def _check(message: Any) -> None:
    """Check a message and all messages in it, regardless of the names of their fields."""
    for field, value in message.ListFields():
        if field.name in ("external_data", "data_location") and value:
            raise ForeignError("a tensor whose data is in another file")
        if field.message_type is not None:
            for part in (value,) if hasattr(value, "ListFields") else value:
                _check(part)
