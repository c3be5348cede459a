"""As ``mmseg-ltmi choose``, from a clone: how a trained model's posterior is read."""

import sys

from mmseg_ltmi.cli import main

if __name__ == '__main__':
    sys.exit(main(['choose', *sys.argv[1:]]))
