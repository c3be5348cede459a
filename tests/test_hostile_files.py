"""Files that are broken, crafted or enormous: a clear error, no code run, no wrong number."""

import io
import json
import os
import pickle
import warnings

import cv2
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from mmseg.datasets.transforms import LoadAnnotations

from mmseg_ltmi import ClassPrior
from mmseg_ltmi.core.json_file import MAX_BYTES
from mmseg_ltmi.core.posterior import OperatingPoint
from mmseg_ltmi.core.priors import build_class_prior
from mmseg_ltmi.core.priors.annotation_loader import count_image
from mmseg_ltmi.core.priors.count_cache import CountCache
from mmseg_ltmi.core.priors.label_histogram import ImageCount, label_histogram, split_histogram
from mmseg_ltmi.models.checkpoint_file import read_checkpoint

fuzz = settings(
    max_examples=int(os.environ.get('LTMI_FUZZ_EXAMPLES', 300)),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
numbers = st.one_of(
    st.integers(), st.floats(), st.sampled_from([2**63, 2**64, 10**400, 1e308, 5e-324])
)
anything = st.recursive(
    st.none() | st.booleans() | numbers | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
PRIOR = ClassPrior([3, 1], ['a', 'b'], [2, 1], 2, 7, 'here').to_dict()
POINT = OperatingPoint('iou', ('a', 'b'), (-0.1, -2.0), 0.0, (0.5, 0.1), (9.0, 2.0)).to_dict()


def one_field_changed(content):
    return st.sampled_from(sorted(content)).flatmap(
        lambda name: anything.map(lambda value: {**content, name: value})
    )


def damaged(content):
    """Bytes of a file that is cut, or has some bytes overwritten, or holds anything at all."""
    whole = content if isinstance(content, bytes) else json.dumps(content).encode()
    cut = st.integers(0, len(whole) - 1).map(lambda end: whole[:end])
    overwritten = st.tuples(st.integers(0, len(whole) - 1), st.binary(min_size=1, max_size=8)).map(
        lambda change: whole[: change[0]] + change[1] + whole[change[0] + len(change[1]) :]
    )
    return cut | overwritten | st.binary(max_size=200)


def assert_is_a_prior(prior):
    probs = prior.probs(0)
    assert probs.isfinite().all() and probs.sum().item() == pytest.approx(1, abs=1e-5)
    assert prior.log_probs().isfinite().all()
    assert sorted(c for group in prior.groups() for c in group) == list(range(prior.num_classes))
    assert ClassPrior(**{k: v for k, v in prior.to_dict().items() if k in PRIOR_FIELDS}) == prior


PRIOR_FIELDS = set(PRIOR) - {'format', 'version'}


@fuzz
@given(damaged(PRIOR) | one_field_changed(PRIOR).map(lambda data: json.dumps(data).encode()))
def test_a_prior_file_is_a_prior_or_an_error_that_names_it(tmp_path, content):
    path = tmp_path / 'prior.json'
    path.write_bytes(content)
    try:
        prior = ClassPrior.load(path)
    except ValueError as error:
        assert 'prior.json' in str(error)
    else:
        assert_is_a_prior(prior)


@fuzz
@given(anything)
def test_anything_as_class_prior_in_a_config(value):
    try:
        prior = build_class_prior(value, where='LogitAdjustedLoss.class_prior')
    except (ValueError, FileNotFoundError) as error:
        assert len(str(error)) < 2000
    else:
        assert_is_a_prior(prior)


def test_sums_that_overflow():
    assert ClassPrior([1e308, 1e308]).probs(0).tolist() == [0.5, 0.5]


@pytest.mark.parametrize('load', [ClassPrior.load, OperatingPoint.load])
def test_an_enormous_file_is_not_read(tmp_path, load):
    path = tmp_path / 'big.json'
    with open(path, 'wb') as file:  # a billion entries; the file has holes
        file.truncate(2 * 10**9)
    with pytest.raises(ValueError, match=f'big.json is larger than {MAX_BYTES} bytes'):
        load(path)
    for path in ('x' * 10**5, tmp_path):
        with pytest.raises(FileNotFoundError) as error:
            load(path)
        assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    'change',
    [
        dict(rule='tau', tau=1e38, log_prior=(-10.0, -2.0)),
        dict(classes=(), log_prior=(), iou=(), union=()),
        dict(union=(0.0, 1.0)),
        dict(iou=(None, 0.1)),
    ],
)
def test_an_operating_point_that_decides_nothing(change):
    with pytest.raises(ValueError, match='not an operating point'):
        OperatingPoint.load({**POINT, **change})


@pytest.mark.parametrize('deep', ['[' * 10**5, '{"a":' * 10**5])
def test_a_nest_without_end(tmp_path, deep):
    (tmp_path / 'deep.json').write_text(deep)
    for load in (ClassPrior.load, OperatingPoint.load):
        with pytest.raises(ValueError, match='deep.json'):
            load(tmp_path / 'deep.json')


@fuzz
@given(damaged(POINT) | one_field_changed(POINT).map(lambda data: json.dumps(data).encode()))
def test_an_operating_point_is_one_or_an_error_that_names_it(tmp_path, content):
    path = tmp_path / 'point.json'
    path.write_bytes(content)
    try:
        point = OperatingPoint.load(path)
    except ValueError as error:
        assert 'point.json' in str(error)
    else:
        assert point.scores(torch.zeros(len(point.classes), 3)).isfinite().all()


class Touch:
    """Pickled, it makes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


def crafted(path, wrap):
    torch.save(wrap(Touch(path.with_name('ran'))), path)
    return path


@pytest.mark.smoke
@pytest.mark.parametrize(
    'wrap',
    [
        lambda bad: bad,
        lambda bad: {'state_dict': {'a': torch.ones(1)}, 'meta': bad},
        lambda bad: {'state_dict': {'a': bad}},
        lambda bad: {'state_dict': {}, 'message_hub': {'log_scalars': {'train/loss': bad}}},
    ],
)
@pytest.mark.skipif(torch.__version__ < '2.6', reason='torch.load would run it')
def test_a_checkpoint_runs_no_code(tmp_path, wrap):
    path = crafted(tmp_path / 'a.pth', wrap)
    with pytest.raises(ValueError, match='a.pth cannot be read as a checkpoint'):
        read_checkpoint(path)
    assert not (tmp_path / 'ran').exists()
    pickle.loads(pickle.dumps(Touch(tmp_path / 'ran'))).close()
    assert (tmp_path / 'ran').exists()  # as it would have been


def test_a_pickle_is_no_prior(tmp_path):
    for load in (ClassPrior.load, OperatingPoint.load):
        (tmp_path / 'p.json').write_bytes(pickle.dumps(Touch(tmp_path / 'ran')))
        with pytest.raises(ValueError, match='p.json'):
            load(tmp_path / 'p.json')
    assert not (tmp_path / 'ran').exists()


def checkpoint_bytes():
    buffer = io.BytesIO()
    torch.save({'state_dict': {'weight': torch.arange(4.0)}, 'meta': {'iter': 3}}, buffer)
    return buffer.getvalue()


@fuzz
@given(damaged(checkpoint_bytes()))
def test_a_damaged_checkpoint_is_read_or_named(tmp_path, content):
    path = tmp_path / 'a.pth'
    path.write_bytes(content)
    try:
        _, state = read_checkpoint(path)
    except ValueError as error:
        assert 'a.pth' in str(error)
    else:
        assert isinstance(state, dict)


def test_no_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match='none.pth does not exist'):
        read_checkpoint(tmp_path / 'none.pth')
    for content, message in (
        ([1, 2], 'holds a list'),
        ({}, 'holds nothing'),
        ({'model': {'weight': torch.ones(1)}, 'epoch': 3}, "holds a dict as 'model'"),
        ({'state_dict': {'conv_seg.weight': 3}}, "holds a int as 'conv_seg.weight'"),
    ):
        torch.save(content, tmp_path / 'a.pth')
        with pytest.raises(ValueError, match=f'a.pth {message}'):
            read_checkpoint(tmp_path / 'a.pth')
    with pytest.raises(OSError, match='cannot be reached'):
        read_checkpoint('http://127.0.0.1:9/a.pth')


def png(labels):
    return cv2.imencode('.png', np.array(labels))[1].tobytes()


LABELS = np.arange(64, dtype=np.uint8).reshape(8, 8) % 3


@fuzz
@given(
    damaged(png(LABELS))
    | arrays.arrays(
        st.sampled_from([np.uint8, np.uint16]),
        arrays.array_shapes(min_dims=2, max_dims=3, max_side=4).filter(
            lambda shape: len(shape) == 2 or shape[2] in (1, 3, 4)
        ),
    ).map(png)
)
def test_a_label_file_is_counted_or_named(tmp_path, content):
    path = tmp_path / 'label.png'
    path.write_bytes(content)
    info = dict(seg_map_path=str(path), reduce_zero_label=False, label_map=None, seg_fields=[])
    for backend in ('pillow', 'cv2'):
        count = count_image(info, LoadAnnotations(imdecode_backend=backend), 3, 255)
        assert count.path == str(path)
        pixels = int(count.pixels.sum()) + count.num_ignored
        assert (pixels == 0) if count.error else (pixels > 0)


@fuzz
@given(
    arrays.arrays(
        arrays.scalar_dtypes(), arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
    )
)
def test_any_array_as_label_map(labels):
    class Loader:
        def __call__(self, info):
            return {'gt_seg_map': labels}

    count = count_image(dict(seg_map_path='x.png'), Loader(), 3, 255)
    if not count.error:
        assert labels.ndim == 2 and count.pixels.sum() + count.num_ignored == labels.size


def test_a_label_that_no_label_map_holds():
    with pytest.raises(ValueError, match='its label 1099511627776 is .* more than 65535'):
        label_histogram(np.array([[0, 2**40]]))


@fuzz
@given(st.data())
def test_a_damaged_count_cache_never_gives_a_wrong_count(tmp_path, data):
    path = tmp_path / 'counts.txt'
    path.unlink(missing_ok=True)
    stored = {}
    for i in range(3):
        histogram = np.zeros(256, np.int64)
        histogram[: i + 1] = 5
        stored[f'k{i}'] = split_histogram(f'{i}.png', histogram, 3, 255)
    CountCache(path, 3).add(stored.items())
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', UserWarning)
        cache = CountCache(path, 3)
    for key, count in stored.items():
        found = cache.get(key)
        assert found is None or isinstance(found, ImageCount)
        assert found is None or found.pixels.tolist() == count.pixels.tolist()
