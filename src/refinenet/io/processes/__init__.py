"""Processes and threads: messages to child processes, locks, signals, and work in parallel.

Start reading at `parallel.map_parallel`, `locks.sole_owner` and `signals.StopRequest`; `child_process.ChildProcess`
is a program of ours in a process of its own, which reads hostile files or may crash.
"""
