"""As ``mmseg-ltmi convert``, from a clone: an LTMI checkpoint becomes one of the stock head."""

import sys

from mmseg_ltmi.cli import main

if __name__ == '__main__':
    sys.exit(main(['convert', *sys.argv[1:]]))
