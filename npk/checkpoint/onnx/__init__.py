"""ONNX files: their operators written with torch's, without running anything that they hold."""
