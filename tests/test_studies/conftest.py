import sys

from tiny import ROOT

sys.path.insert(0, str(ROOT / 'studies'))
