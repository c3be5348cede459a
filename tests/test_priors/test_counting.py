import os
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import DATASETS, TRANSFORMS

import mmseg_ltmi  # noqa: F401
from mmseg_ltmi.priors import ClassCountError, count_as_trained, count_dataset, describe
from mmseg_ltmi.priors.histogram import count_image, label_histogram
from mmseg_ltmi.priors.workers import CHUNK

CLASSES = ('a', 'b', 'c')


@pytest.fixture
def root(tmp_path):
    for folder in ('img', 'ann'):
        (tmp_path / folder).mkdir()
    for i, label in enumerate(([[0, 1], [1, 2]], [[2, 2], [255, 0]], [[0, 0], [0, 0]])):
        write(tmp_path, i, label)
    return tmp_path


def write(root, i, label):
    label = np.array(label, np.uint8)
    cv2.imwrite(str(root / f'img/{i}.png'), np.zeros((*label.shape, 3), np.uint8))
    path = root / f'ann/{i}.png'
    cv2.imwrite(str(path), label)
    os.utime(path, ns=(0, i * 10**9))  # times do not hang on the speed of the test


def build(root, load=None, rest=(), image=False, **kwargs):
    load = {'type': 'mmseg.LoadAnnotations', **(load or {})}
    first = [dict(type='LoadImageFromFile')] if image else []
    config = dict(
        type='mmseg.BaseSegDataset',
        data_root=str(root),
        data_prefix=dict(img_path='img', seg_map_path='ann'),
        img_suffix='.png',
        pipeline=[*first, load, *rest],
    )
    return DATASETS.build({**config, 'metainfo': dict(classes=CLASSES), **kwargs})


@pytest.fixture
def reads(monkeypatch):
    """The label files that were read, in order."""
    names = []
    plain = LoadAnnotations._load_seg_map

    def load(self, results):
        names.append(Path(results['seg_map_path']).name)
        return plain(self, results)

    monkeypatch.setattr(LoadAnnotations, '_load_seg_map', load)
    return names


def recount(root, reads, **kwargs):
    """Counts of the pixels, and what was read for them."""
    reads.clear()
    report = count_dataset(build(root, **kwargs), cache=root / 'counts.txt')
    return report.prior.pixel_counts.tolist(), sorted(reads)


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.int64])
def test_histogram_by_hand(dtype):
    labels = np.array([[7, 0, 0], [255, 7, 7]], dtype)
    expected = np.zeros(256, int)
    expected[[0, 7, 255]] = 2, 3, 1
    for view in (labels, labels.T, labels[:, ::-1]):
        assert (label_histogram(view) == expected).all()


def test_histogram_is_exact_where_float32_is_not():
    labels = np.zeros((4097, 4097), np.uint8)
    labels[0, 0] = 1
    assert label_histogram(labels)[:2].tolist() == [4097**2 - 1, 1]


@pytest.mark.parametrize('reduce_zero_label', [False, True])
@pytest.mark.parametrize('label_map', [None, {0: 255, 1: 0, 2: 1}, {0: 1, 1: 0}, {3: 3, 7: 300}])
def test_counts_what_the_loader_returns(tmp_path, reduce_zero_label, label_map):
    rng = np.random.default_rng(0)
    (tmp_path / 'img').mkdir(), (tmp_path / 'ann').mkdir()
    write(tmp_path, 0, rng.integers(0, 256, (40, 50)))

    def info():
        return dict(
            seg_map_path=str(tmp_path / 'ann/0.png'),
            label_map=label_map,
            reduce_zero_label=reduce_zero_label,
            seg_fields=[],
        )

    count = count_image(info(), LoadAnnotations(), 255, 255)
    try:
        labels = LoadAnnotations()(info())['gt_seg_map']
    except OverflowError:  # numpy 2 on label 300
        assert 'OverflowError' in count.error
        return
    expected = np.bincount(labels.ravel(), minlength=256)
    assert (count.pixels == expected[:255]).all() and count.num_ignored == expected[255]


def test_loader_that_contradicts_its_data_set_fails(root):
    report = count_dataset(build(root, load=dict(reduce_zero_label=True)))
    assert report.prior is None and 'reduce_zero_label' in report.failures[0][1]


@TRANSFORMS.register_module(force=True)
class SwappedLoadAnnotations(LoadAnnotations):
    def __init__(self, table=(1, 0), **kwargs):
        super().__init__(**kwargs)
        self.table = table

    def _load_seg_map(self, results):
        super()._load_seg_map(results)
        labels = results['gt_seg_map'].astype(np.int64)
        results['gt_seg_map'] = np.array([*self.table, *range(2, 256)])[labels]


def test_custom_loader_decides(root):
    prior = count_dataset(build(root, load=dict(type='SwappedLoadAnnotations'))).prior
    assert prior.pixel_counts.tolist() == [2, 6, 3] and prior.num_ignored == 1


@pytest.mark.parametrize('workers', [0, 2])
def test_warm_cache_reads_nothing(root, reads, workers):
    cold = count_dataset(build(root), workers, cache=root / 'counts.txt')
    assert cold.prior.pixel_counts.tolist() == [6, 2, 3]
    reads.clear()
    assert count_dataset(build(root), cache=root / 'counts.txt') == cold and not reads


def test_reads_only_what_changed(root, reads):
    assert recount(root, reads) == ([6, 2, 3], ['0.png', '1.png', '2.png'])
    write(root, 2, [[1, 1], [1, 1]])
    os.utime(root / 'ann/2.png', ns=(0, 9 * 10**9))
    assert recount(root, reads) == ([2, 6, 3], ['2.png'])
    write(root, 3, [[2]])
    assert recount(root, reads) == ([2, 6, 4], ['3.png'])
    for folder in ('img', 'ann'):
        (root / folder / '0.png').unlink()
    assert recount(root, reads) == ([1, 4, 3], [])


@pytest.mark.parametrize(
    'change',
    [
        dict(ignore_index=2),
        dict(reduce_zero_label=True),
        dict(metainfo=dict(classes=('a', 'b', 'c', 'd'))),
        dict(load=dict(imdecode_backend='cv2')),
        dict(load=dict(type='SwappedLoadAnnotations')),
    ],
)
def test_another_pipeline_is_counted_again(root, reads, change):
    if 'ignore_index' in change:  # which leaves no label 255
        write(root, 1, [[2, 2], [2, 0]])
    recount(root, reads)
    fresh = count_dataset(build(root, **change)).prior.pixel_counts.tolist()
    assert recount(root, reads, **change) == (fresh, ['0.png', '1.png', '2.png'])
    assert recount(root, reads, **change) == (fresh, [])
    assert recount(root, reads)[1] == []  # and the first pipeline's counts are still there


def test_arguments_of_a_custom_loader_belong_to_the_key(root, reads):
    load = dict(type='SwappedLoadAnnotations')
    recount(root, reads, load=load)
    assert recount(root, reads, load={**load, 'table': (0, 1)}) == (
        [6, 2, 3],
        ['0.png', '1.png', '2.png'],
    )


def test_files_behind_a_backend_are_not_cached(root, reads):
    load = dict(backend_args=dict(backend='local'))
    recount(root, reads, load=load)
    assert recount(root, reads, load=load)[1] == []

    class Mapped(LoadAnnotations):  # reads a place that os.stat does not know
        def _load_seg_map(self, results):
            arguments, self.backend_args = self.backend_args, None
            super()._load_seg_map(results)
            self.backend_args = arguments

    TRANSFORMS.register_module(name='MappedLoadAnnotations', module=Mapped, force=True)
    load = dict(type='MappedLoadAnnotations', backend_args=dict(backend='petrel'))
    for _ in range(2):
        assert len(recount(root, reads, load=load)[1]) == 3


@pytest.mark.parametrize('damage', ['torn', 'bit', 'garbage'])
def test_damaged_cache_is_counted_again_with_a_message(root, reads, damage):
    recount(root, reads)
    path = root / 'counts.txt'
    data = path.read_bytes()
    lines = data.splitlines(keepends=True)
    path.write_bytes(
        {
            'torn': data[:-20],
            'bit': data.replace(b'"pixels": [1, 2, 1]', b'"pixels": [1, 9, 1]'),
            'garbage': b'\xff\x00\n' + b''.join(lines[1:]),
        }[damage]
    )
    with pytest.warns(UserWarning, match=r'counts\.txt: 1 of 3 lines cannot be read'):
        counts, read = recount(root, reads)
    assert counts == [6, 2, 3] and len(read) == 1
    assert recount(root, reads) == ([6, 2, 3], [])
    for line in path.read_bytes().splitlines(keepends=True):
        assert int(line[:8], 16) == zlib.crc32(line[9:])


def test_failures_are_never_cached(root, reads):
    good = (root / 'ann/0.png').read_bytes()
    stat = os.stat(root / 'ann/0.png')
    (root / 'ann/0.png').write_bytes(b'x' * len(good))
    os.utime(root / 'ann/0.png', ns=(stat.st_atime_ns, stat.st_mtime_ns))
    for _ in range(2):  # fails again, rather than count as nothing
        report = count_dataset(build(root), cache=root / 'counts.txt')
        assert [Path(p).name for p, _ in report.failures] == ['0.png']
        assert report.prior.num_images == 2
    with pytest.raises(ClassCountError, match=r'0\.png'):
        count_dataset(build(root), strict=True, cache=root / 'counts.txt')
    (root / 'ann/0.png').write_bytes(good)
    os.utime(root / 'ann/0.png', ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert recount(root, reads) == ([6, 2, 3], ['0.png'])


def test_goes_on_where_it_was_interrupted(root, reads, monkeypatch):
    for i in range(3, 3 * CHUNK):
        write(root, i, [[i % 3]])
    counting = LoadAnnotations._load_seg_map

    def interrupted(self, results):
        if len(reads) == 2 * CHUNK + 5:
            raise KeyboardInterrupt
        return counting(self, results)

    with monkeypatch.context() as patch:
        patch.setattr(LoadAnnotations, '_load_seg_map', interrupted)
        with pytest.raises(KeyboardInterrupt):
            recount(root, reads)
    fresh = count_dataset(build(root)).prior.pixel_counts.tolist()
    counts, read = recount(root, reads)
    assert counts == fresh and len(read) == CHUNK  # two chunks of three were kept


SLOW = """
import sys, time
sys.path.insert(0, {tests!r})
from mmseg.datasets.transforms import LoadAnnotations
from test_counting import build, count_dataset
plain = LoadAnnotations._load_seg_map
def slow(self, results):
    time.sleep(0.02)
    plain(self, results)
LoadAnnotations._load_seg_map = slow
count_dataset(build({root!r}), 2, cache={root!r} + '/counts.txt')
"""


@pytest.mark.skipif(not Path('/proc').is_dir(), reason='looks for processes in /proc')
def test_killed_count_leaves_its_counts_and_no_process(root, reads):
    for i in range(3, 20 * CHUNK):
        write(root, i, [[i % 3]])
    code = SLOW.format(tests=str(Path(__file__).parent), root=str(root))
    run = subprocess.Popen([sys.executable, '-c', code], start_new_session=True)
    cache = root / 'counts.txt'
    try:
        wait_for(cache.exists, 60)
    finally:
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
    wait_for(lambda: not processes_of_session(run.pid), 20)
    kept = len(cache.read_bytes().splitlines())
    fresh = count_dataset(build(root)).prior.pixel_counts.tolist()
    counts, read = recount(root, reads)
    assert 0 < kept < 20 * CHUNK and counts == fresh and len(read) == 20 * CHUNK - kept


def wait_for(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, 'waited too long'
        time.sleep(0.02)


def processes_of_session(session):
    found = []
    for stat in Path('/proc').glob('[0-9]*/stat'):
        try:
            state, _, _, its = stat.read_text().rpartition(')')[2].split()[:4]
        except OSError:
            continue  # ended meanwhile
        if int(its) == session and state != 'Z':
            found.append(stat)
    return found


def test_description_changes_with_the_files(root):
    before = describe(build(root))
    assert describe(build(root)) == before
    os.utime(root / 'ann/1.png', ns=(0, 77))
    assert describe(build(root)) != before


@TRANSFORMS.register_module(force=True)
class TopLeft:
    """Crops to the first pixel."""

    def __call__(self, results):
        results['gt_seg_map'] = results['gt_seg_map'][:1, :1]
        return results


def test_as_trained_by_hand(root):
    dataset = build(root, rest=[dict(type='TopLeft')])
    for workers in (0, 2):
        prior, failures = count_as_trained(dataset, 6, num_workers=workers)
        # Two passes; the corners are labels 0, 2 and 0, the raw labels [6, 2, 3].
        assert prior.pixel_counts.tolist() == [4, 0, 2] and not failures
        assert prior.image_counts.tolist() == [4, 0, 2] and prior.num_images == 6
    assert count_dataset(dataset).prior.pixel_counts.tolist() == [6, 2, 3]
    assert '6 samples, seed 0' in prior.source


def test_as_trained_through_random_crops_depends_on_the_seed_alone(tmp_path):
    (tmp_path / 'img').mkdir(), (tmp_path / 'ann').mkdir()
    rng = np.random.default_rng(0)
    for i in range(4):
        write(tmp_path, i, rng.integers(0, 3, (20, 20)))
    rest = [
        dict(type='mmseg.RandomCrop', crop_size=(8, 8)),
        dict(type='RandomFlip', prob=0.5),
        dict(type='mmseg.PackSegInputs'),
    ]
    dataset = build(tmp_path, rest=rest, image=True)
    np.random.seed(3)
    state = np.random.get_state()[1].copy()
    first = count_as_trained(dataset, 10, seed=1).prior
    assert (np.random.get_state()[1] == state).all()
    np.random.seed(4)
    assert count_as_trained(dataset, 10, seed=1, num_workers=2).prior == first
    other = count_as_trained(dataset, 10, seed=2).prior
    assert (other.pixel_counts != first.pixel_counts).any()
    assert first.pixel_counts.sum() == 10 * 8 * 8


def test_as_trained_counts_repeats(root):
    wrapped = DATASETS.build(dict(type='RepeatDataset', times=2, dataset=build(root)))
    assert len(wrapped) == 6
    assert count_as_trained(wrapped, 6).prior.pixel_counts.tolist() == [12, 4, 6]


def test_as_trained_lists_failures_and_strict_stops(root):
    (root / 'ann/1.png').write_bytes(b'no png')
    prior, failures = count_as_trained(build(root), 3)
    assert prior.num_images == 2 and Path(failures[0][0]).name == '1.png'
    with pytest.raises(ClassCountError, match=r'1\.png'):
        count_as_trained(build(root), 3, strict=True)
    with pytest.raises(ValueError, match='num_samples=0'):
        count_as_trained(build(root), 0)


@TRANSFORMS.register_module(force=True)
class DyingLoadAnnotations(LoadAnnotations):
    def _load_seg_map(self, results):
        os._exit(3)


def test_a_process_that_dies_is_an_error(root):
    with pytest.raises(ClassCountError, match='a counting process died'):
        count_dataset(build(root, load=dict(type='DyingLoadAnnotations')), 1)
