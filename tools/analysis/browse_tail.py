"""As ``mmseg-ltmi browse``, from a clone: a page of the images that hold the rarest classes."""

import sys

from mmseg_ltmi.cli import main

if __name__ == '__main__':
    sys.exit(main(['browse', *sys.argv[1:]]))
