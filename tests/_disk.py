"""Faults of files: a disk that is full, and files that may not be read."""

import codecs
import os
import resource
from contextlib import contextmanager


@contextmanager
def files_of_at_most(size):
    """Let this process, and those that it starts, write no file of more bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@contextmanager
def without_permission(path):
    """Work in the directory of a file as somebody who may write there, but not read the file.

    Root may read all files: the process becomes somebody else, whom directories above may keep
    out. Only names relative to the directory can be used.
    """
    # Of zip archives: where somebody else may not import it, Python would not look for it again.
    codecs.lookup("cp437")
    before, permissions = os.getcwd(), path.stat().st_mode
    path.parent.chmod(0o777)
    path.chmod(0)
    os.chdir(path.parent)
    is_root = os.geteuid() == 0
    try:
        if is_root:
            os.seteuid(65534)
        yield
    finally:
        if is_root:
            os.seteuid(0)
        os.chdir(before)
        if path.exists():
            path.chmod(permissions)
