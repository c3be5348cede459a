"""What Windows and macOS lack, on Linux: fork, and Unix's modules."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SCRIPT = """
import multiprocessing
import signal
import sys

if __name__ == '__main__':
    import mmengine.runner, torch.utils.data, torch.distributed  # which have their own ways
    multiprocessing.set_start_method('spawn')
    for name in ('fcntl', 'resource', 'pwd', 'grp', 'termios'):
        sys.modules[name] = None
    for name in ('SIGHUP', 'SIGKILL', 'SIGALRM'):
        delattr(signal, name)

    import mmseg_ltmi
    from mmengine.registry import init_default_scope
    from mmengine.runner import Runner
    from mmseg.registry import DATASETS

    init_default_scope('mmseg')
    load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
    data = dict(type='LongTailShapesDataset', num_images=6, size=(32, 32))
    dataset = DATASETS.build(dict(data, pipeline=load + [dict(type='PackSegInputs')]))
    counted = mmseg_ltmi.ClassPrior.from_dataset(dataset, num_workers=2)
    assert counted.num_images == 6
    assert (counted.pixel_counts == mmseg_ltmi.ClassPrior.from_dataset(dataset).pixel_counts).all()
    loader = dict(dataset=dataset, batch_size=3, num_workers=2)
    sampler = dict(type='DefaultSampler', shuffle=False)
    loader = Runner.build_dataloader(dict(loader, sampler=sampler))
    print(sum(len(batch['inputs']) for batch in loader), 'images')
"""


def test_spawned_workers_no_unix_modules_and_another_encoding(tmp_path):
    (tmp_path / 'script.py').write_text(SCRIPT, 'utf-8')
    env = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1')
    env |= dict(PYTHONUTF8='0', PYTHONCOERCECLOCALE='0', LC_ALL='C')  # text files stay UTF-8
    done = subprocess.run(
        [sys.executable, 'script.py'], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == '6 images'
