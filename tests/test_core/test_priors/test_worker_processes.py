"""Worker processes: stopped by Ctrl-C, left by a killed parent, and no trace in the caller."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from mmseg_ltmi.core.priors import ClassPrior

SLOW_COUNT = """
import os, signal, sys, time
# A shell lets what it starts in the background ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
from types import SimpleNamespace
import numpy as np
from mmseg_ltmi.core.priors import count_dataset
from pathlib import Path

class LoadAnnotations:
    def __call__(self, info):
        time.sleep(0.02)
        return dict(gt_seg_map=np.array([[0, 1]], np.uint8))

class Slow:
    metainfo = dict(classes=('a', 'b'))
    pipeline = SimpleNamespace(transforms=[LoadAnnotations()])
    def full_init(self): pass
    def __len__(self): return 10000
    def get_data_info(self, i): return dict(seg_map_path=__file__, i=i)

if __name__ == '__main__':
    count_dataset(Slow(), num_workers=2, cache=sys.argv[1])
"""


def children(pid):
    """Processes that a process has started."""
    file = Path(f'/proc/{pid}/task/{pid}/children')
    return [int(p) for p in file.read_text(encoding='utf-8').split()]


def running(pid):
    try:
        state = Path(f'/proc/{pid}/stat').read_text(encoding='utf-8')
    except FileNotFoundError:
        return False
    return state.rsplit(')')[-1].split()[0] != 'Z'


def wait_for(true, seconds=30):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='reads /proc')
@pytest.mark.parametrize('stop', [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_the_count_that_is_stopped(tmp_path, stop):
    script, cache = tmp_path / 'count.py', tmp_path / 'counts.txt'
    script.write_text(SLOW_COUNT)
    process = subprocess.Popen(
        [sys.executable, script, cache], stderr=subprocess.PIPE, start_new_session=True, text=True
    )
    wait_for(cache.exists)
    workers = children(process.pid)
    assert len(workers) == 2
    if stop == signal.SIGINT:  # a terminal sends it to all
        os.killpg(process.pid, stop)
    else:
        process.kill()
    stopped = time.monotonic()
    process.wait(30)
    wait_for(lambda: not any(map(running, workers)))
    assert time.monotonic() - stopped < 20
    assert len(cache.read_bytes().splitlines()) % 32 == 0
    if stop == signal.SIGINT:
        assert process.returncode != 0
        message = process.stderr.read()
        assert message.strip().endswith('KeyboardInterrupt')
        assert message.count('Traceback') == 1  # none of the workers


def test_counting_leaves_the_random_state_of_the_caller(tmp_path):
    np.save(tmp_path / 'a.npy', np.array([[0, 1]], np.uint8))

    def states():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    before = states()
    for workers in (0, 1):
        ClassPrior.from_label_files([tmp_path / 'a.npy'], 2, num_workers=workers)
    assert states() == before
