"""Run commands of keras-kd, one after the other. A process of its own: one of them may end it.

Reads a JSON document per line from standard input, {"arguments": [...], "directory": "..."}, and
answers each with one, {"code": ..., "output": "...", "errors": "...", "megabytes": ...}: the exit
code, what was written to the file descriptors 1 and 2, and the most memory so far.
"""

import json
import os
import resource
import sys
import tempfile
import traceback


def main() -> None:
    """Answer every line."""
    # By this name the package knows that it runs as the command, which quiets TensorFlow first.
    sys.argv[0] = "keras-kd"
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        task = json.loads(line)
        os.chdir(task["directory"])
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            os.dup2(output.fileno(), 1)
            os.dup2(errors.fileno(), 2)
            code = run(task["arguments"])
            answer = {"code": code, "output": text(output), "errors": text(errors)}
        answer["megabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def run(arguments: list[str]) -> int:
    """As the installed command does, but for the end of the process."""
    from keras_kd.cli import main as keras_kd

    try:
        return keras_kd(arguments)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def text(file) -> str:
    """All that was written to the file."""
    file.seek(0)
    return file.read().decode(errors="replace")


if __name__ == "__main__":
    main()
