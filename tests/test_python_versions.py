"""The code keeps to what the oldest Python that setup.py admits knows, syntax and library."""

import subprocess
import sys
from pathlib import Path

from tiny import ROOT


def test_oldest_python():
    assert "python_requires='>=3.10'" in (ROOT / 'setup.py').read_text()
    tool = Path(sys.executable).with_name('vermin')
    command = [tool, '-t=3.10-', '--violations', '--no-tips', 'mmseg_ltmi', 'tools', 'setup.py']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
