"""RefineNet: high-resolution semantic segmentation."""
