"""Images: turning the bytes of an image file into pixels, thumbnails and comparisons."""
