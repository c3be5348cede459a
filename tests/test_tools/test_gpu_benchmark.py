"""The command that is to find out on a GPU what only a GPU can show, at toy size on a CPU."""

import argparse
import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from tiny import ROOT

FOLDER = ROOT / 'tools/benchmarks'


def test_all_of_it_at_toy_size(tmp_path):
    done = subprocess.run(
        [sys.executable, FOLDER / 'gpu.py', '--device', 'cpu', '--quick', '--out', tmp_path],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / 'gpu.json').read_text())['parts']
    with_triton = {'kernels', 'blocks'}
    for name, part in found.items():
        expected = 'done' if name not in with_triton or find_spec('triton') else 'left out'
        assert part['status'] == expected, (name, part)
    assert found['tests']['result']['passed'] > 5 and found['tests']['result']['failures'] == []
    term = found['contrast']['result']['16,64,4,8']
    assert term['products']['launches'] == 2 < term['ours']['launches'] < 200
    assert found['training']['result']['ltmi']['mIoU'] >= 0
    table = (tmp_path / 'gpu.md').read_text()
    assert '## contrast: done' in table and 'OperatingPointMetric, 21 taus' in table
    assert (tmp_path / 'gpu.png').stat().st_size > 10_000


def test_a_part_that_fails_or_hangs_ends_alone(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import gpu

    def fails(task):
        yield 'first', 1
        raise RuntimeError('broken')

    def hangs(task):
        yield 'first', 2
        subprocess.run(['sleep', '60'])

    def crashes(task):
        yield 'first', 3
        os._exit(3)

    parts = SimpleNamespace(Task=lambda *given: given, fails=fails, hangs=hangs, crashes=crashes)
    monkeypatch.setitem(sys.modules, 'gpu_parts', parts)
    args = argparse.Namespace(device='cpu', quick=True, out=tmp_path)
    start = time.perf_counter()
    found = {name: gpu.bounded(name, args, 2) for name in ('fails', 'hangs', 'crashes')}
    assert time.perf_counter() - start < 30
    assert [part['status'] for part in found.values()] == ['failed', 'stopped', 'stopped']
    assert [part['result']['first'] for part in found.values()] == [1, 2, 3]
    assert 'broken' in found['fails']['why'] and 'more than 2 s' in found['hangs']['why']
    assert 'Traceback' in (tmp_path / 'fails.log').read_text()
    assert 'broken' in gpu.table('fails', found['fails'])


def test_what_is_gathered_for_a_machine_without_a_network(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(FOLDER))
    import gather_for_gpu

    data = tmp_path / 'camvid11'
    for folder in ('img_dir/train', 'ann_dir/train'):
        (data / folder).mkdir(parents=True)
    image = np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)
    labels = np.full((90, 120), 7, np.uint8)
    labels[:, 60:] = 255
    cv2.imwrite(str(data / 'img_dir/train/a.jpg'), image)
    cv2.imwrite(str(data / 'ann_dir/train/a.png'), labels)
    (data / 'license.txt').write_text('research')
    monkeypatch.setattr(gather_for_gpu, 'download', lambda folder, _: folder.mkdir(parents=True))
    out = tmp_path / 'out'
    arguments = ['x', '--camvid', str(data), '--out', str(out), '--width', '40']
    monkeypatch.setattr(sys, 'argv', arguments)
    gather_for_gpu.main()
    small = cv2.imread(str(out / 'camvid11/ann_dir/train/a.png'), cv2.IMREAD_UNCHANGED)
    assert small.shape == (30, 40) and (small[:, :20] == 7).all() and (small[:, 20:] == 255).all()
    assert cv2.imread(str(out / 'camvid11/img_dir/train/a.jpg')).shape == (30, 40, 3)
    assert (out / 'camvid11/license.txt').exists()
    printed = capsys.readouterr().out
    assert f'{out}/wheels/*.whl' in printed and f'LTMI_CAMVID_ROOT={out}/camvid11' in printed
    assert gather_for_gpu.pinned('mmengine') == 'mmengine==0.10.7'
    monkeypatch.setattr(sys, 'argv', [*arguments, '--limit', '0.0001'])
    with pytest.raises(SystemExit, match='more than 0: take a smaller --width'):
        gather_for_gpu.main()
