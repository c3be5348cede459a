"""As ``mmseg-ltmi count``, from a clone: how often each class occurs in a data set."""

import sys

from mmseg_ltmi.cli import main

if __name__ == '__main__':
    sys.exit(main(['count', *sys.argv[1:]]))
