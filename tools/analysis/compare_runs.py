"""As ``mmseg-ltmi compare``, from a clone: runs in a table and two plots."""

import sys

from mmseg_ltmi.cli import main

if __name__ == '__main__':
    sys.exit(main(['compare', *sys.argv[1:]]))
