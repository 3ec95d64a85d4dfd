"""Images: one image file, from its bytes to pixels, thumbnails and comparisons."""
