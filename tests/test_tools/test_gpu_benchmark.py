"""The command that is to find out on a GPU what only a GPU can show, at toy size on a CPU."""

import argparse
import json
import subprocess
import sys
import time
from importlib.util import find_spec
from types import SimpleNamespace

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
        import os

        os.abort()

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
