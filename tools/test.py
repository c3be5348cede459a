"""As ``mmseg-ltmi test``, from a clone; dist_test.sh runs several processes, on CPUs too."""

import sys

from mmseg_ltmi.cli import main

if __name__ == '__main__':
    sys.exit(main(['test', *sys.argv[1:]]))
