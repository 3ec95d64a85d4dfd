"""What imgsearch promises of its speed and memory, measured. See `python -m benchmarks.NAME -h`."""
