"""Reading, checking and running ONNX models without trusting the file."""
