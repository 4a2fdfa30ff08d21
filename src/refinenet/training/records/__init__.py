"""Files of a run: its folder, record, checkpoints, curves, and recipes."""
