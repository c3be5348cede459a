"""As ``mmseg-ltmi train``, from a clone; dist_train.sh runs several processes, on CPUs too."""

import sys

from mmseg_ltmi.cli import main

if __name__ == '__main__':
    sys.exit(main(['train', *sys.argv[1:]]))
