"""Loading of exported files: `.onnx`, and OpenVINO's `.xml` with its `.bin`.

The files are untrusted. `loader` reads them once, into memory. `onnx` and `openvino` hold the checks; `sandbox`, a
separate process, applies them and runs the graph on small images. Exactly the bytes that it accepted are run.
`memory_bound` proves how much memory a graph can need.
"""
