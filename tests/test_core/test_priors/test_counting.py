"""Counting that is stopped and goes on, and counting what training sees."""

import multiprocessing
import os
import signal
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import DATASETS, TRANSFORMS

import mmseg_ltmi  # noqa: F401
from mmseg_ltmi.core.priors import ClassCountError, count_as_trained, count_dataset

NUMBER = 40  # more than a chunk of 32
READ: list[str] = []
LOCAL = dict(img_path='img', seg_map_path='ann')


@TRANSFORMS.register_module(force=True)
class SpyOnAnnotations(LoadAnnotations):
    """Notes what is read; stops like Ctrl-C, or dies, where it is told to."""

    stop_after = None
    die_after = None
    dies_of = None

    def transform(self, results):
        if self.stop_after is not None and len(READ) >= self.stop_after:
            raise KeyboardInterrupt
        if self.die_after is not None and len(READ) >= self.die_after:
            os.kill(os.getpid(), signal.SIGKILL)
        if os.path.basename(results['seg_map_path']) == self.dies_of:
            time.sleep(1)  # what was finished before has arrived by then
            os._exit(1)
        READ.append(os.path.basename(results['seg_map_path']))
        return super().transform(results)


@TRANSFORMS.register_module(force=True)
class FirstRow:
    """A crop that is not random."""

    def __call__(self, results):
        results['gt_seg_map'] = results['gt_seg_map'][:1]
        return results


@pytest.fixture
def root(tmp_path):
    READ.clear()
    for folder in ('img', 'ann'):
        (tmp_path / folder).mkdir()
    for i in range(NUMBER):
        write(tmp_path, i, [[i % 3, 255], [1, 1]])
    return tmp_path


def write(root, i, label):
    (root / 'img' / f'{i:02}.jpg').touch()
    cv2.imwrite(str(root / 'ann' / f'{i:02}.png'), np.array(label, np.uint8))


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def build(root, place=None, *transforms, **kwargs):
    pipeline = [dict(type='mmseg.SpyOnAnnotations', **kwargs), *transforms]
    return DATASETS.build(
        dict(
            type='mmseg.BaseSegDataset',
            metainfo=dict(classes=('a', 'b', 'c')),
            pipeline=pipeline,
            **(place or dict(data_root=str(root), data_prefix=LOCAL)),
        )
    )


def count(root, **kwargs):
    READ.clear()
    report = count_dataset(build(root), cache=root / 'counts.txt', **kwargs)
    return report.prior.pixel_counts.tolist()


# Labels 0, 1, 2 come 14, 13, 13 times in the corner, and label 1 twice more in every image.
EXPECTED = [14, 13 + 80, 13]


def test_a_stopped_count_goes_on(root, monkeypatch):
    monkeypatch.setattr(SpyOnAnnotations, 'stop_after', 35)
    with pytest.raises(KeyboardInterrupt):
        count(root)
    monkeypatch.undo()
    assert count(root) == EXPECTED
    assert len(READ) == NUMBER - 32  # what was done in whole chunks is not read again
    assert count(root) == EXPECTED and not READ


def test_a_killed_count_goes_on(root, monkeypatch):
    monkeypatch.setattr(SpyOnAnnotations, 'die_after', 35)
    process = multiprocessing.get_context('fork').Process(target=count, args=(root,))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    monkeypatch.undo()
    assert count(root) == EXPECTED and len(READ) == NUMBER - 32


def test_a_dead_worker_is_an_error_and_what_was_done_stays(root, monkeypatch):
    monkeypatch.setattr(SpyOnAnnotations, 'dies_of', f'{NUMBER - 1}.png')
    with pytest.raises(ClassCountError, match='a counting process died'):
        count(root, num_workers=1)
    monkeypatch.undo()
    assert count(root) == EXPECTED and len(READ) == NUMBER - 32


def test_labels_behind_a_server(root, monkeypatch):
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    handler = partial(QuietHandler, directory=str(root))
    with ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f'http://127.0.0.1:{server.server_port}'
        (root / 'list.txt').write_text(''.join(f'{i:02}\n' for i in range(NUMBER)))
        remote = dict(
            data_root='',
            ann_file=str(root / 'list.txt'),
            data_prefix=dict(img_path=f'{url}/img', seg_map_path=f'{url}/ann'),
        )
        dataset = build(root, remote, backend_args=dict(backend='http'))
        cache = root / 'counts.txt'
        reports = [count_dataset(dataset, num_workers, cache=cache) for num_workers in (0, 2)]
        (root / 'ann' / '05.png').unlink()
        failed = count_dataset(dataset)
        server.shutdown()
    for report in reports:
        assert not report.failures
        assert report.prior.pixel_counts.tolist() == EXPECTED
    assert not cache.exists()  # nothing tells whether a file behind a server has changed
    assert [path for path, _ in failed.failures] == [f'{url}/ann/05.png']


def test_a_half_written_line_is_counted_again(root):
    count(root)
    with open(root / 'counts.txt', 'r+b') as file:
        file.truncate(os.path.getsize(root / 'counts.txt') - 5)
    with pytest.warns(UserWarning, match='1 of 40 lines cannot be read'):
        assert count(root) == EXPECTED
    assert len(READ) == 1


def test_only_what_changed_is_read_again(root):
    count(root)
    write(root, 0, [[2, 2], [2, 2]])
    os.utime(root / 'ann' / '00.png', ns=(1, 1))
    write(root, NUMBER, [[0, 0], [0, 0]])
    (root / 'ann' / '01.png').unlink()
    (root / 'img' / '01.jpg').unlink()
    # Image 0 had a 0 and two 1, image 1 three 1.
    assert count(root) == [14 - 1 + 4, 93 - 2 - 3, 13 + 4]
    assert sorted(READ) == ['00.png', '40.png']


def test_another_pipeline_is_another_count(root):
    count(root)
    READ.clear()
    report = count_dataset(build(root, imdecode_backend='cv2'), cache=root / 'counts.txt')
    assert report.prior.pixel_counts.tolist() == EXPECTED and len(READ) == NUMBER


def test_failures_are_not_kept(root):
    good = (root / 'ann' / '05.png').read_bytes()
    (root / 'ann' / '05.png').write_bytes(b'no png')
    report = count_dataset(build(root), cache=root / 'counts.txt')
    assert [os.path.basename(path) for path, _ in report.failures] == ['05.png']
    assert report.prior.num_images == NUMBER - 1
    (root / 'ann' / '05.png').write_bytes(good)
    assert count(root) == EXPECTED and READ == ['05.png']


@pytest.mark.parametrize('workers', [0, 2])
def test_as_trained_counts_what_the_crop_leaves(root, workers):
    dataset = build(root, None, dict(type='mmseg.FirstRow'))
    prior = count_as_trained(dataset, 2 * NUMBER, num_workers=workers).prior
    assert prior.pixel_counts.tolist() == [28, 26, 26]  # each image twice, its first row
    assert (prior.num_ignored, prior.num_images) == (80, 80)
    assert count(root) == EXPECTED


def test_as_trained_depends_on_the_seed_alone(root):
    dataset = build(root, None, dict(type='mmseg.FirstRow'))
    first, again, other = (
        count_as_trained(dataset, 7, seed, workers).prior.pixel_counts.tolist()
        for seed, workers in ((3, 0), (3, 2), (4, 0))
    )
    assert first == again and sum(first) == sum(other) == 7
    with pytest.raises(ValueError, match='count 1 sample or more'):
        count_as_trained(dataset, 0)
    (root / 'ann' / '05.png').write_bytes(b'no png')
    with pytest.raises(ClassCountError, match='05.png'):
        count_as_trained(dataset, NUMBER, strict=True)
