"""RareClassDataset and RareClassPaste, on files, by the registry."""

import numpy as np
import pytest
from mmengine.dataset.utils import worker_init_fn
from mmseg.registry import DATASETS, TRANSFORMS
from PIL import Image
from torch.utils.data import DataLoader

import mmseg_ltmi  # noqa: F401
from mmseg_ltmi.core.priors import ClassCountError, count_as_trained, count_dataset, describe

NAMES = ['ground', 'bush', 'coin', 'none']
LOAD = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
PACK = dict(type='PackSegInputs', meta_keys=('img_path',))
CROP = dict(type='RandomCrop', crop_size=(8, 8))


def label_map(number):
    labels = np.zeros((32, 32), np.uint8)
    if number % 2:
        labels[:, :4] = 1
    if number == 7:  # of eight images
        labels[2:6, 3:7] = 2
    labels[-1] = 255
    return labels


@pytest.fixture
def root(tmp_path, monkeypatch):
    for folder in ('img', 'ann'):
        (tmp_path / folder).mkdir()
    for i in range(8):
        labels = label_map(i)
        image = np.stack([labels * 20 + i] * 3, -1)
        Image.fromarray(image).save(tmp_path / f'img/{i}.png')
        Image.fromarray(labels).save(tmp_path / f'ann/{i}.png')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def data(*pipeline, **options):
    own = dict(img_suffix='.png', metainfo=dict(classes=NAMES), pipeline=[*LOAD, *pipeline])
    folders = dict(img_path='img', seg_map_path='ann')
    return {'type': 'BaseSegDataset', 'data_prefix': folders, **own, **options}


def rare(dataset=None, **options):
    inside = dataset or data(CROP, PACK)
    return DATASETS.build(dict(type='RareClassDataset', dataset=inside, min_pixels=4, **options))


def pasted(*pipeline, dataset=None, **options):
    paste = dict(type='RareClassPaste', min_pixels=4, **{'prob': 1, **options})
    inside = dataset or data()
    return DATASETS.build(
        dict(type='MultiImageMixDataset', dataset=inside, pipeline=[paste, *pipeline])
    )


def labels_of(sample):
    return sample['data_samples'].gt_sem_seg.data[0].numpy()


# RareClassDataset


def test_a_crop_holds_the_class_that_was_drawn(root):
    dataset = rare(temperature=1e-4, max_tries=200)
    assert len(dataset) == 8 and dataset.metainfo['classes'] == NAMES
    np.testing.assert_allclose(dataset.draw.probs, [0, 0, 1, 0], atol=1e-9)
    np.random.seed(0)
    for i in range(8):
        sample = dataset[i]
        assert (labels_of(sample) == 2).sum() >= 2  # half of min_pixels
        assert sample['data_samples'].img_path.endswith('7.png')
    with pytest.raises(IndexError, match='item 8 of 8'):
        dataset[8]


def test_the_best_of_the_tries_is_taken(root):
    few = rare(temperature=1e-4, max_tries=4, min_crop_ratio=1, dataset=data(CROP, PACK))
    one = rare(temperature=1e-4, max_tries=1)
    found = []
    for dataset in (one, few):
        np.random.seed(1)
        found.append(np.mean([(labels_of(dataset[i % 8]) == 2).sum() for i in range(200)]))
    assert found[1] > 2 * found[0]  # a crop of 8x8 rarely meets the 16 pixels


def test_draws_follow_the_probabilities(root):
    dataset = rare(data(PACK), temperature=0.1, max_tries=1)
    share = np.array([7428, 492, 16, 0])  # of 8 images of 31 rows
    share = share / share.sum()
    odds = np.exp((1 - share[:3]) / 0.1)
    np.testing.assert_allclose(dataset.draw.probs[:3], odds / odds.sum())
    np.random.seed(2)
    number = 400
    drawn = [dataset[i % 8]['data_samples'].img_path[-5] == '7' for i in range(number)]
    expected = dataset.draw.probs @ [1 / 8, 1 / 4, 1, 0]
    assert abs(np.mean(drawn) - expected) < 4 * np.sqrt(expected * (1 - expected) / number)


@pytest.mark.parametrize('workers', [0, 2])
def test_the_seed_decides(root, workers):
    dataset = rare(temperature=0.3)

    def draw(seed, rank=0):
        def start(worker):
            worker_init_fn(worker, 2, rank, seed)

        np.random.seed(seed)
        loader = DataLoader(
            dataset, num_workers=workers, worker_init_fn=start, collate_fn=lambda samples: samples
        )
        return [[s['data_samples'].img_path, labels_of(s).sum()] for b in loader for s in b]

    first = draw(5)
    assert first == draw(5) and first != draw(9)


def test_ranks_of_one_seed_draw_otherwise(root):
    """Without worker processes every rank has the same generator."""
    dataset = rare(data(PACK), temperature=10)
    drawn = []
    for rank in range(2):
        np.random.seed(0)
        items = range(rank, 8, 2)
        drawn.append([dataset[i]['data_samples'].img_path for i in items])
    assert drawn[0] != drawn[1]


def test_wrappers_inside_and_outside(root):
    both = dict(type='ConcatDataset', datasets=[data(CROP, PACK), data(CROP, PACK)])
    dataset = rare(both, temperature=1e-4)
    assert len(dataset) == 16
    np.random.seed(0)
    assert dataset[0]['data_samples'].img_path.endswith('7.png')
    assert dataset.get_data_info(9)['img_path'].endswith('1.png')
    repeated = DATASETS.build(dict(type='RepeatDataset', times=3, dataset=dict(
        type='RareClassDataset', dataset=data(PACK))))  # fmt: skip
    assert len(repeated) == 24
    for inside in (
        dict(type='RepeatDataset', times=2, dataset=data(PACK)),
        dict(type='RareClassDataset', dataset=data(PACK)),
    ):
        with pytest.raises(ValueError, match='repeats or draws images, so item i is not image i'):
            rare(inside)
        paste = pasted(PACK, dataset=inside)
        with pytest.raises(ValueError, match='repeats or draws images, so item i is not image i'):
            paste[0]


def test_labels_are_read_as_in_training(root):
    """With reduce_zero_label the ground is none, and the classes move down."""
    dataset = rare(
        data(CROP, PACK, reduce_zero_label=True, metainfo=dict(classes=NAMES[1:])), temperature=1e-3
    )
    assert dataset.draw.probs.argmax() == 1
    assert dataset.draw.image_shares().argmax() == 0


def test_counts_are_kept_in_a_file(root):
    def draw():
        return rare(cache='counts.txt').draw.image_shares().tolist()

    first = draw()
    assert len((root / 'counts.txt').read_text().splitlines()) == 8
    count_dataset(DATASETS.build(data(CROP, PACK)), cache='counts.txt')
    assert draw() == first and len((root / 'counts.txt').read_text().splitlines()) == 8


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(temperature=0), 'temperature=0'),
        (dict(max_tries=0), 'RareClassDataset has min_crop_ratio=0.5, max_tries=0'),
        (dict(min_crop_ratio=2), 'min_crop_ratio=2'),
        (dict(dataset=data(PACK, img_suffix='.tif', serialize_data=False)), 'has no images'),
        (dict(dataset=data(PACK, metainfo=None)), 'names no classes'),
    ],
)
def test_what_cannot_be_wrapped(root, options, message):
    with pytest.raises(ValueError, match=message):
        rare(**options)


def test_bad_labels_are_named(root):
    Image.fromarray(np.full((32, 32), 9, np.uint8)).save(root / 'ann/3.png')
    with pytest.raises(ClassCountError, match=r'3\.png: labels 9 .*neither a class'):
        rare()


# RareClassPaste


def test_the_class_and_nothing_else_is_pasted(root):
    dataset = pasted(PACK, flip_prob=0, classes=['coin'])
    source = label_map(7) == 2
    np.random.seed(0)
    for i in range(8):
        sample = dataset[i]
        want = np.where(source, 2, label_map(i))
        assert (labels_of(sample) == want).all()
        pixels = sample['inputs'][0].numpy()
        assert (pixels[source] == 2 * 20 + 7).all()  # those of image 7
        grey = (label_map(i).astype(int) * 20 + i) % 256
        assert (pixels[~source] == grey[~source]).all()


def test_a_flipped_paste(root):
    dataset = pasted(PACK, flip_prob=1, classes='tail')  # a third of four is one, which none has
    with pytest.raises(ValueError, match=r'no image has a pixel of the classes \[3\]'):
        dataset[0]
    dataset = pasted(PACK, flip_prob=1, classes=['coin'])
    source = (label_map(7) == 2)[:, ::-1]
    sample = dataset[0]
    assert (labels_of(sample) == np.where(source, 2, label_map(0))).all()
    assert (sample['inputs'][0].numpy()[source] == 47).all()


@pytest.mark.parametrize('size', [(12, 12), (32, 32), (50, 20)])
def test_images_of_other_sizes(root, size):
    """The class is cut where it does not fit, and a pixel of it is always there."""
    image = np.zeros((*size, 3), np.uint8)
    Image.fromarray(image).save('img/0.png')
    Image.fromarray(image[..., 0]).save('ann/0.png')
    dataset = pasted(PACK, classes=['coin'])
    np.random.seed(0)
    places = set()
    for _ in range(40):
        labels = labels_of(dataset[0])
        assert labels.shape == size and set(np.unique(labels)) == {0, 2}
        places.add(tuple(np.argwhere(labels == 2)[0]))
    assert len(places) > 1


def test_how_often_it_is_pasted(root):
    dataset = pasted(PACK, prob=0.25, classes=['coin'])
    np.random.seed(0)
    found = np.mean([(labels_of(dataset[i % 7]) == 2).any() for i in range(200)])
    assert 0.15 < found < 0.35
    assert not any((labels_of(pasted(PACK, prob=0)[i]) == 2).any() for i in range(7))


def test_the_seed_decides_what_is_pasted(root):
    dataset = pasted(PACK, temperature=10)

    def draw(seed):
        np.random.seed(seed)
        return [labels_of(dataset[i]).sum() for i in range(8)]

    assert draw(0) == draw(0) != draw(1)


def test_what_was_cropped_away_is_not_pasted(root):
    corner = dict(type='CenterCrop', crop_size=(4, 4))
    dataset = pasted(PACK, dataset=data(corner), classes=['coin'])
    assert (labels_of(dataset[1]) == 0).all()


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(prob=1.5), 'prob=1.5, flip_prob=0.5: probabilities'),
        (dict(temperature=-1), 'temperature=-1'),
        (dict(classes='coin'), r"classes='coin': give a list of names, or 'tail'"),
    ],
)
def test_what_cannot_be_pasted(options, message):
    with pytest.raises(ValueError, match=message):
        TRANSFORMS.build(dict(type='RareClassPaste', **options))


def test_paste_says_what_is_missing(root):
    with pytest.raises(ValueError, match=r"the data set has not: \['euro'\]. It has \['ground'"):
        pasted(classes=['euro'])[0]
    alone = DATASETS.build(data(dict(type='RareClassPaste')))
    with pytest.raises(ValueError, match='a transform of a MultiImageMixDataset'):
        alone[0]


# Counted as trained


def test_a_count_as_trained_sees_what_is_drawn_and_pasted(root):
    """In worker processes too, which draw and paste by the seed alone."""
    plain = count_dataset(DATASETS.build(data(PACK))).prior
    kinds = dict(
        sampled=lambda: rare(data(PACK), temperature=0.01),
        pasted=lambda: pasted(PACK, temperature=0.01),
        both=lambda: rare(
            dict(type='MultiImageMixDataset', dataset=data(), pipeline=[
                dict(type='RareClassPaste', prob=0.5), PACK])
        ),
    )  # fmt: skip
    for name, make in kinds.items():
        dataset = make()
        counted = count_as_trained(dataset, 40).prior
        again = count_as_trained(make(), 40, num_workers=2).prior
        assert counted.pixel_counts.tolist() == again.pixel_counts.tolist(), name
        assert counted.probs(0)[2] > 3 * plain.probs(0)[2], name
        assert counted.image_counts[2] > 4 * plain.image_counts[2], name  # 40 samples of 8 images
        assert count_dataset(dataset).prior == plain, name  # of the labels as they are
        by = 'RareClassPaste(prob=' if name != 'sampled' else 'RareClassDataset(temperature=0.01, '
        assert by in counted.source and f', resampled by {"RareC"}' in counted.source
        assert describe(dataset) in counted.source


def test_drawn_whole_images_have_the_shares_that_are_stated(root):
    dataset = rare(data(PACK), temperature=0.05)
    counted = count_as_trained(dataset, 400).prior.probs(0).numpy()
    np.testing.assert_allclose(counted, dataset.draw.image_shares(), atol=0.01)
