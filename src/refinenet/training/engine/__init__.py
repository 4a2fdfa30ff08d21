"""Training engine: `Trainer` (the loop), `Learner` (one step), `TrainState`, and settings that are "auto".

`state` and `Learner.state` define what a checkpoint holds; `records.checkpoints` writes and reads the files.
"""
