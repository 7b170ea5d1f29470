"""`python -m keras_kd`: the same as the command `keras-kd`."""

import sys

from keras_kd.cli.supervisor import main

if __name__ == "__main__":
    sys.exit(main())
