"""Images: turning the bytes of an image file into pixels, thumbnails and comparisons."""

from __future__ import annotations

__all__ = ["DECODER"]

#: Version of the conversion from files to pixels; a collection records that of its embeddings.
#:
#: 1 (to 0.3): 16-bit samples scaled by their full range, colours as stored, the first frame.
#: 2: samples scaled by the range they use, colours converted by their ICC profile, the first frame
#: that shows something, the preview of a raw. For other files, both give the same pixels.
DECODER = 2
