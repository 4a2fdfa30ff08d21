"""Loading of exported files: `.onnx`, and OpenVINO's `.xml` with its `.bin`.

The files are untrusted. `loader` reads them once, into memory; `sandbox`, a separate process, checks and tests them
there, and exactly the bytes that it accepted are run. `memory_bound` proves how much memory a graph can need.
"""
