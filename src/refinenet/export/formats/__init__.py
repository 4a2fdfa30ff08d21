"""Export formats: a module for each program, which writes a traced network and opens the file by that program.

`targets` says what each suffix stands for, without PyTorch; `table` has the functions that write and open it.
"""
