"""ONNX models: read, checked and run without trusting the file."""
