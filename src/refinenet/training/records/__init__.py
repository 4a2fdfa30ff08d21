"""What a run writes and reads: its folder, record, checkpoints, curves, and recipes."""
