"""Processes and threads: messages to child processes, locks, signals, and work in parallel.

Start reading at `parallel.map_parallel`, `locks.sole_owner` and `signals.StopRequest`; `child_process` has what is
needed to talk to a program of ours that reads hostile files.
"""
