"""The map of a collection: its images in a plane, those that look alike side by side."""
