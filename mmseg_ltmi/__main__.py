"""``python -m mmseg_ltmi`` is ``mmseg-ltmi``."""

import sys

from mmseg_ltmi.cli import main

if __name__ == '__main__':
    sys.exit(main())
