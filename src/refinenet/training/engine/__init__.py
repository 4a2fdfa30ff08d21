"""Training engine: `Trainer` (the loop), `Learner` (one step), `TrainState`, and settings that are "auto".

`state` defines what a checkpoint holds.
"""
