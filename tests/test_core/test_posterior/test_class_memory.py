"""ClassMemory against a naive reference, its file, and what draws its keys."""

import copy
import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from ranks import run_ranks
from torch import nn

from mmseg_ltmi.core import ScoreReader
from mmseg_ltmi.core.contrast import ProjectionHead
from mmseg_ltmi.core.posterior import (
    ClassMemory,
    KeyOrigins,
    KeyReservoir,
    OperatingPoint,
    class_memory,
    fit_temperature,
)


def naive(memory_keys, labels, shares, num_classes, temperature, query):
    """The posterior of one pixel in float64, written as the definition says."""
    keys = F.normalize(memory_keys.double(), dim=1)
    query = F.normalize(query.double(), dim=0)
    likelihood = []
    for c in range(num_classes):
        own = labels == c
        if not own.any():
            likelihood.append(None)
            continue
        share = shares[own].double() / shares[own].double().sum()
        likelihood.append(float((share * (keys[own] @ query / temperature).exp()).sum()))
    total = sum(value for value in likelihood if value is not None)
    known = sum(value is not None for value in likelihood)
    return [
        math.log(1 / num_classes)
        if value is None
        else math.log(value / total * known / num_classes)
        for value in likelihood
    ]


def test_two_classes_by_hand():
    """Keys along the axes, T 1/2: the pixel (1, 0) has q.k of 1 and 0, likelihoods e^2 and 1."""
    memory = ClassMemory(torch.eye(2) * 3, torch.tensor([0, 1]), 2, temperature=0.5)
    found = memory(torch.tensor([2.0, 0.0]).view(1, 2, 1, 1)).flatten().exp()
    e2 = math.exp(2)
    torch.testing.assert_close(found, torch.tensor([e2 / (e2 + 1), 1 / (e2 + 1)]))


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    num_classes=st.integers(1, 6),
    number=st.integers(1, 20),
    temperature=st.floats(0.03, 2),
    block=st.sampled_from([1, 50, 2**20]),
)
def test_it_is_the_mixture_of_the_definition(seed, num_classes, number, temperature, block):
    torch.manual_seed(seed)
    keys, labels = torch.randn(number, 5), torch.randint(0, num_classes, (number,))
    shares = torch.rand(number) + 0.1
    features = torch.randn(2, 5, 3, 2)
    memory = ClassMemory(keys, labels, num_classes, temperature, shares=shares)
    before, class_memory.BLOCK = class_memory.BLOCK, block
    try:
        found = memory(features)
    finally:
        class_memory.BLOCK = before
    assert found.shape == (2, num_classes, 3, 2)
    torch.testing.assert_close(found.exp().sum(1), torch.ones(2, 3, 2))
    expected = naive(keys, labels, shares, num_classes, temperature, features[1, :, 2, 0])
    torch.testing.assert_close(
        found[1, :, 2, 0].double(), torch.tensor(expected).double(), rtol=1e-3, atol=1e-4
    )


def test_a_projector_embeds_and_is_a_copy():
    torch.manual_seed(0)
    projector = ProjectionHead(6, 4, 5)
    keys, labels = torch.randn(7, 4), torch.arange(7) % 3
    memory = ClassMemory(keys, labels, 3, 0.1, projector)
    features = torch.randn(1, 6, 2, 2)
    embedded = projector(features.movedim(1, -1).flatten(0, 2)).T.view(1, 4, 2, 2)
    plain = ClassMemory(keys, labels, 3, 0.1)
    expected = plain(embedded)
    torch.testing.assert_close(memory(features), expected)
    nn.init.zeros_(projector[0].weight)
    torch.testing.assert_close(memory(features), expected)
    assert memory.in_channels == 6 and plain.in_channels == 4
    assert not any(p.requires_grad for p in memory.parameters())
    assert not memory.train().training
    with pytest.raises(ValueError, match='reads features of 6 channels, but these have 4'):
        memory(embedded)


@pytest.mark.parametrize(
    'device',
    [
        'cpu',
        pytest.param(
            'cuda', marks=pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
        ),
    ],
)
def test_half_precision_features_and_autocast(device):
    torch.manual_seed(0)
    memory = ClassMemory(torch.randn(9, 8), torch.arange(9) % 3, 3, 0.1, ProjectionHead(8, 8))
    features = torch.randn(1, 8, 4, 4, device=device)
    exact = memory.to(device)(features)
    torch.testing.assert_close(memory(features.half()), exact, rtol=0, atol=0.1)
    torch.testing.assert_close(memory(features.bfloat16()), exact, rtol=0, atol=0.1)
    with torch.autocast(device, torch.bfloat16):
        found = memory(features)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact, rtol=0, atol=0)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize('projector', [None, ProjectionHead(8, 4)])
def test_a_model_of_another_precision_reads_with_it(dtype, projector):
    torch.manual_seed(0)
    width = 8 if projector is None else 4
    memory = ClassMemory(torch.randn(9, width), torch.arange(9) % 3, 3, 0.1, projector)
    reader, classifier = ScoreReader(3), nn.Conv2d(8, 3, 1)
    reader.add_memory_to(classifier)
    reader.set_memory(memory, 0.5)
    network, features = nn.ModuleList([reader, classifier]).eval(), torch.randn(1, 8, 4, 4)
    expected = classifier(features)
    found = network.to(dtype)[1](features.to(dtype))
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=0.1)
    assert reader.memory.keys.dtype == reader.union.dtype == torch.float32
    torch.testing.assert_close(network.float()[1](features), expected, rtol=0, atol=0.1)


def made(seed=0, projector=None, **more):
    torch.manual_seed(seed)
    origins = KeyOrigins(('a.png', 'b.png'), torch.arange(6) % 2, torch.rand(6, 2))
    return ClassMemory(
        torch.randn(6, 4), torch.tensor([2, 0, 2, 0, 0, 2]), 4, 0.1, projector, weight=0.5,
        shares=torch.rand(6), classes='abcd', fingerprint='f', origins=origins,
        report={'seed': 0}, **more,
    )  # fmt: skip


@pytest.mark.parametrize(
    'projector', [None, ProjectionHead(6, 4, 5), ProjectionHead(6, 4, num_layers=1)]
)
def test_a_file_holds_all_of_it(tmp_path, projector):
    memory = made(projector=projector)
    memory.save(tmp_path / 'new/memory.pth')
    found = ClassMemory.load(tmp_path / 'new/memory.pth')
    features = torch.randn(1, memory.in_channels, 2, 2)
    assert torch.equal(found(features), memory(features))
    assert found.classes == tuple('abcd') and found.fingerprint == 'f'
    assert found.report == {'seed': 0} and float(found.weight) == 0.5
    assert found.origins.images == memory.origins.images
    assert torch.equal(found.origins.position, memory.origins.position)
    assert found.num_keys.tolist() == [3, 0, 3, 0]
    # Sorted by class, and the origins with them.
    assert found.key_labels.tolist() == [0, 0, 0, 2, 2, 2]
    assert memory.origins.image.tolist() == [1, 1, 0, 0, 0, 1]
    value, place = found.similar_keys(found.keys[2, 1:2], 2)
    assert place[0, 0] == 4 and value[0, 0] == pytest.approx(1)


def test_a_memory_is_made_on_the_device_of_its_keys():
    """On a GPU, which is the meta device's part here: what names no device lands there."""
    memory = made()
    state, query = memory.state_dict(), torch.randn(2, 4, 3, 3)
    samples, labels = F.normalize(torch.randn(30, 4), dim=1), torch.arange(30) % 4
    with torch.device('meta'):
        again = ClassMemory.from_state(state)
        temperature = fit_temperature(samples, labels, labels.div(4).long(), 4)
    assert temperature == fit_temperature(samples, labels, labels.div(4).long(), 4)
    assert all(value.device.type == 'cpu' for value in again.state_dict().values())
    torch.testing.assert_close(again(query), memory(query), rtol=0, atol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('projector', [None, ProjectionHead(6, 4)], ids=['none', 'projector'])
def test_a_state_on_a_gpu_is_loaded(projector):
    memory = made(projector=projector)
    reader = ScoreReader(4)
    reader.set_memory(memory, 0.5)
    state = {name: value.cuda() for name, value in reader.state_dict().items()}
    for place in ('cpu', 'cuda'):
        other = ScoreReader(4).to(place)
        other.load_state_dict(state)
        assert {value.device.type for value in other.state_dict().values()} == {place}
        query = torch.randn(2, memory.in_channels, 3, 3)
        torch.testing.assert_close(other.memory(query.to(place)).cpu(), memory.cpu()(query))


def test_files_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match='does not exist: make it again with mmseg-ltmi'):
        ClassMemory.load(tmp_path / 'no.pth')
    made().save(tmp_path / 'm.pth')
    content = (tmp_path / 'm.pth').read_bytes()
    (tmp_path / 'half.pth').write_bytes(content[: len(content) // 2])
    torch.save({'state_dict': {}}, tmp_path / 'other.pth')
    torch.save([nn.Linear(1, 1)], tmp_path / 'code.pth')
    for name in ('half', 'other', 'code'):
        with pytest.raises(ValueError, match=rf'{name}.pth is no memory that can be read'):
            ClassMemory.load(tmp_path / f'{name}.pth')


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(keys=torch.empty(0, 4), labels=torch.empty(0).long()), 'there is none'),
        (dict(keys=torch.full((2, 4), torch.nan)), 'must be finite'),
        (dict(labels=torch.tensor([0, 3])), r'in 0\.\.2, but go from 0 to 3'),
        (dict(labels=torch.tensor([0])), 'have shapes'),
        (dict(shares=torch.tensor([1.0, 0.0])), 'positive numbers'),
        (dict(temperature=0), 'must be positive, but is 0'),
        (dict(classes='ab'), '2 class names for num_classes=3'),
    ],
)
def test_what_makes_no_memory(change, message):
    good = dict(keys=torch.randn(2, 4), labels=torch.tensor([0, 1]), num_classes=3, temperature=0.1)
    with pytest.raises(ValueError, match=message):
        ClassMemory(**{**good, **change})
    for bad in (dict(num_layers=3), dict(num_layers=1, hidden_channels=4)):
        with pytest.raises(ValueError, match='use 2 layers, or 1 and no hidden_channels'):
            ProjectionHead(6, 4, **bad)
    with pytest.raises(TypeError, match='keeps a ProjectionHead, not a Linear'):
        ClassMemory(**good, projector=nn.Linear(4, 4))


# In a ScoreReader


def point(**more):
    return OperatingPoint('tau', tuple('abcd'), (-1.0,) * 4, **more)


def test_a_reader_pools_it_outside_of_training():
    memory = made()
    reader, classifier = ScoreReader(4), nn.Conv2d(4, 4, 1)
    shift = torch.tensor([0.5, -1.0, 2.0, 0.0])
    reader.update(shift)
    reader.add_memory_to(classifier)
    features = torch.randn(1, 4, 3, 3)
    plain = classifier(features)
    reader.set_point(point(memory_weight=0.75, memory='m.pth'), memory)
    assert reader.has_point and reader.changes_scores
    assert torch.equal(classifier(features), plain)  # in training
    classifier.eval()
    # Of the log-posteriors, which are the raw scores and the natural shift.
    shift = shift[:, None, None]
    expected = (plain + shift + 0.75 * memory(features)) / 1.75 - shift
    torch.testing.assert_close(classifier(features), expected)

    # A copy and a pickle have their own.
    for twin in (
        copy.deepcopy([reader, classifier]),
        pickle.loads(pickle.dumps([reader, classifier])),
    ):
        torch.testing.assert_close(twin[1](features), expected)
        twin[0].reset_point()
        torch.testing.assert_close(twin[1](features), plain)
    # So has whoever loads the state, and one without drops it.
    other, its = ScoreReader(4), copy.deepcopy(classifier)
    its._forward_hooks.clear()
    other.add_memory_to(its)
    other.load_state_dict(reader.state_dict())
    torch.testing.assert_close(its(features), expected)
    other.load_state_dict({})
    torch.testing.assert_close(its(features), expected)
    other.load_state_dict(ScoreReader(4).state_dict())
    torch.testing.assert_close(its(features), plain)
    reader.reset_point()
    torch.testing.assert_close(classifier(features), plain)
    assert not reader.has_point


@pytest.mark.parametrize('rule', ['tau', 'iou'])
def test_a_reader_decides_as_its_operating_point(rule):
    memory, reader, classifier = made(), ScoreReader(4), nn.Conv2d(4, 4, 1).eval()
    reader.add_memory_to(classifier)
    log_prior = torch.tensor([0.6, 0.25, 0.1, 0.05]).log()
    features, weight = torch.randn(1, 4, 9, 9), 0.75
    plain = (classifier(features) + weight * memory(features)).double()
    iou, union = torch.tensor([0.8, 0.5, 0.3, 0.2]), torch.tensor([0.7, 0.4, 0.2, 0.1])
    if rule == 'tau':
        scores = plain - 0.5 * log_prior[:, None, None]
    else:
        posterior = (plain / (1 + weight)).softmax(1)
        scores = posterior * (1 + iou)[:, None, None] - iou[:, None, None]
        scores = scores / union[:, None, None]
    chosen = OperatingPoint(
        rule,
        tuple('abcd'),
        tuple(log_prior.tolist()),
        tau=0.5 * (rule == 'tau'),
        iou=tuple(iou.tolist()) * (rule == 'iou'),
        union=tuple(union.tolist()) * (rule == 'iou'),
        memory_weight=weight,
        memory='m.pth',
    )
    reader.set_point(chosen, memory)
    assert torch.equal(reader.classes(classifier(features)), scores.argmax(1))
    assert torch.equal(chosen.decide(plain[0].float()), scores[0].argmax(0))


def test_a_reader_refuses_another_memory(tmp_path):
    reader = ScoreReader(3)
    with pytest.raises(ValueError, match='was chosen with a memory: give its file too'):
        reader.set_point(
            OperatingPoint('tau', tuple('abc'), (-1.0,) * 3, memory_weight=1.0, memory='m.pth')
        )
    with pytest.raises(ValueError, match='it has 4 classes, this one has 3'):
        reader.set_memory(made(), 0.5)


def test_an_operating_point_names_its_memory(tmp_path):
    point(tau=0.5, memory_weight=0.25, memory='m.pth').save(tmp_path / 'p.json')
    found = OperatingPoint.load(tmp_path / 'p.json')
    assert found.memory == str(tmp_path / 'm.pth')  # from the folder of the file
    assert str(found) == 'memory_weight=0.25, tau_test=0.5' and str(point()) == 'tau_test=0'
    for bad in (
        dict(memory_weight=0.5),
        dict(memory='m.pth'),
        dict(memory_weight=math.inf),
        dict(memory_weight=-1.0, memory='m.pth'),
    ):
        point(**bad).save(tmp_path / 'bad.json')
        with pytest.raises(ValueError, match='memory'):
            OperatingPoint.load(tmp_path / 'bad.json')


# What draws the keys


def show(reservoir, images, seed=0):
    """Pixels whose features say which one it is: (image, place)."""
    for image in images:
        generator = torch.Generator().manual_seed(100 + image)
        labels = torch.randint(-1, 3, (60,), generator=generator)
        labels[labels == 2] = 255
        if image == 3:
            labels[:2] = 2  # a class of two pixels
        place = torch.arange(60.0)
        features = torch.stack([torch.full((60,), float(image)), place], 1)
        position = torch.stack([place, place], 1) / 60
        reservoir.add_image(features, labels, position, lambda x: x, image, f'{image}.png')
    return reservoir


def test_what_is_drawn_is_balanced_and_of_the_images():
    drawn = show(KeyReservoir(4, per_class=10, per_image=4), range(8)).drawn
    assert drawn.labels.tolist() == [0] * 10 + [1] * 10 + [2] * 2
    assert torch.equal(drawn.samples[:, 0].long(), drawn.image)
    torch.testing.assert_close(drawn.samples[:, 1] / 60, drawn.position[:, 0])
    for c in (0, 1):
        assert drawn.image[drawn.labels == c].bincount().max() <= 4
    assert set(drawn.samples[drawn.labels == 2][:, 1].tolist()) == {0.0, 1.0}


def same(one, other):
    return all(
        torch.equal(a.sort(0).values, b.sort(0).values) for a, b in zip(one, other, strict=True)
    )


def test_neither_order_nor_an_interruption_matters():
    whole = show(KeyReservoir(4, 10, 4, seed=1), range(8))
    assert same(show(KeyReservoir(4, 10, 4, seed=1), [5, 2, 7, 0, 3, 1, 6, 4]).drawn, whole.drawn)
    first = show(KeyReservoir(4, 10, 4, seed=1), range(3))
    rest = KeyReservoir(4, 10, 4, seed=1)
    rest.load_state_dict(first.state_dict())
    assert same(show(rest, range(3, 8)).drawn, whole.drawn) and rest.paths == whole.paths
    assert not same(show(KeyReservoir(4, 10, 4, seed=2), range(8)).drawn, whole.drawn)


def test_what_is_not_finite_is_not_stored():
    reservoir = KeyReservoir(2, 5, 5)
    features = torch.tensor([[1.0], [torch.nan], [torch.inf], [2.0]])
    labels = torch.tensor([0, 0, 1, 1])
    reservoir.add_image(features, labels, torch.zeros(4, 2), lambda x: x, 0)
    assert reservoir.drawn.samples.flatten().tolist() == [1, 2]
    reservoir.add_image(features, labels * 0 + 255, torch.zeros(4, 2), lambda x: x, 1)
    assert len(reservoir.drawn.labels) == 2 and set(reservoir.paths) == {0}
    with pytest.raises(ValueError, match='per_image=0: draw at least 1'):
        KeyReservoir(2, 5, 0)


def _gather(rank, world, folder):
    reservoir = KeyReservoir(4, 10, 4)
    # As a sampler that fills up the last batch: image 0 is seen by both.
    show(reservoir, [*range(rank, 8, world), 0][: 5 if rank else 4])
    reservoir.gather()
    torch.save([reservoir.drawn, reservoir.paths], f'{folder}/{rank}.pth')


def test_two_ranks_store_what_one_does(tmp_path):
    run_ranks(_gather, 2, tmp_path)
    whole = show(KeyReservoir(4, 10, 4), range(8))
    for rank in range(2):
        drawn, paths = torch.load(tmp_path / f'{rank}.pth', weights_only=False)
        assert same(drawn, whole.drawn) and paths == whole.paths
