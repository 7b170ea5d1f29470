"""The command `keras-kd`: what a person types becomes a call, and its result a print.

`program` runs one command and reports what went wrong, `arguments` and `terminal` hold what
commands share, and each command has a module with its options and its call.
"""

from keras_kd.cli.program import main

__all__ = ["main"]
