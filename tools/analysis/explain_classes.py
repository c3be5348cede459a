"""As ``mmseg-ltmi explain``, from a clone: what the classes are taken for."""

import sys

from mmseg_ltmi.cli import main

if __name__ == '__main__':
    sys.exit(main(['explain', *sys.argv[1:]]))
