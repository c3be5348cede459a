"""The memory of a trained model: made, chosen with, tested with, embedded, exported."""

import copy
import json
import re

import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS

from mmseg_ltmi.apis import choose, memory, runs
from mmseg_ltmi.apis.config_changes import read_config
from mmseg_ltmi.apis.convert import convert
from mmseg_ltmi.apis.memory import make_memory, memory_of_queue
from mmseg_ltmi.apis.memory_centers import with_centers
from mmseg_ltmi.apis.neighbors import find_neighbors
from mmseg_ltmi.apis.split_data import split_loader
from mmseg_ltmi.apis.trained_model import load_model
from mmseg_ltmi.cli import main
from mmseg_ltmi.core.posterior import ClassMemory
from mmseg_ltmi.datasets import LongTailShapesDataset
from mmseg_ltmi.evaluation.per_class import summary
from mmseg_ltmi.models.segmentors import ReadScores


@pytest.fixture(scope='module', autouse=True)
def checkpoint(folder):
    """Scores that a memory can change."""
    content = torch.load(folder / 'small.pth')
    content['state_dict']['decode_head.conv_seg.weight'] /= 100
    torch.save(content, folder / 'soft.pth')


@pytest.fixture(scope='module')
def file(folder, checkpoint):
    make_memory(str(folder / 'small.py'), folder / 'soft.pth').save(folder / 'class_memory.pth')
    return folder / 'class_memory.pth'


def assert_tests_as_chosen(rows, cfg, checkpoint, folder, **how):
    """A test counts what choose reported, but for a few pixels whose two best classes tie."""
    runs.test(cfg, checkpoint, folder / 'test', per_class=folder / 'rows.json', **how)
    for found, row in zip(json.loads((folder / 'rows.json').read_text()), rows, strict=True):
        assert (found['class'], found['pixels']) == (row['class'], row['pixels'])
        for count in ('predicted', 'intersection'):
            assert found[count] == pytest.approx(row[count], abs=3)


def test_from_the_command_line_to_a_test(folder, cfg, tmp_path, capsys):
    files = [str(folder / 'small.py'), str(folder / 'soft.pth')]
    out = tmp_path / 'memory.pth'
    made = ['memory', *files, '--out', str(out), '--temperature', '0.001']
    assert main([*made, '--per-class', '20', '--centers', '4']) == 0
    shown = capsys.readouterr().out
    assert 'embedded features, T 0.001' in shown and f'--memory {out}' in shown
    assert not list(tmp_path.glob('*.drawn'))
    assert main(['memory', *files, '--out', str(out)]) == 1
    assert 'give --force' in capsys.readouterr().err

    chosen = ['choose', *files, '--memory', str(out), '--choose', 'memory and tau']
    chosen += ['--out', str(tmp_path / 'point'), '--embed', str(tmp_path / 'in.pth')]
    assert main(chosen) == 0
    shown = capsys.readouterr().out
    assert 'memory_weight=' in shown and '\nmemory posterior: calibration error' in shown
    content = json.loads((tmp_path / 'point/operating_point.json').read_text())
    values = content['report']['values']
    assert content['memory_weight'] > 0 and content['memory'] == 'class_memory.pth'

    # The report says what a test finds, from the folder, moved, and from the checkpoint.
    out.unlink()
    (tmp_path / 'point').rename(tmp_path / 'moved')
    rows = json.loads((tmp_path / 'moved/per_class/memory_and_tau.json').read_text())
    assert summary(rows)['mIoU'] == pytest.approx(values['memory and tau']['mIoU'])
    point = tmp_path / 'moved/operating_point.json'
    assert_tests_as_chosen(rows, cfg, folder / 'soft.pth', tmp_path, operating_point=point)
    assert_tests_as_chosen(rows, cfg, tmp_path / 'in.pth', tmp_path)
    assert values['memory and tau'] != values['tau by mIoU']


def test_the_queue_is_a_memory_too(folder, cfg, tmp_path, capsys):
    files = [str(folder / 'small.py'), str(tmp_path / 'trained.pth')]
    out = tmp_path / 'memory.pth'
    with pytest.raises(ValueError, match='soft.pth is empty: give a checkpoint of training'):
        memory_of_queue(cfg, folder / 'soft.pth')
    content = torch.load(folder / 'soft.pth', weights_only=True)
    queue = load_model(cfg, folder / 'soft.pth').decode_head.contrast.queue
    samples = torch.nn.functional.normalize(torch.randn(300, queue.samples.shape[1]), dim=1)
    queue.enqueue(samples, torch.arange(300) % 12, torch.arange(300))  # the last class has none
    for name, value in queue.state_dict().items():
        content['state_dict'][f'decode_head.contrast.queue.{name}'] = value
    torch.save(content, files[1])
    assert main(['memory', *files, '--from-queue', '--centers', '0', '--out', str(out)]) == 0
    assert 'embedded features' in capsys.readouterr().out
    found = ClassMemory.load(out)
    state = torch.load(files[1], weights_only=True)['state_dict']
    queue = {name: state[f'decode_head.contrast.queue.{name}'] for name in ('samples', 'labels')}
    model = load_model(cfg, files[1])
    assert found.num_keys.tolist() == [int((queue['labels'] == c).sum()) for c in range(13)]
    assert float(found.temperature) == pytest.approx(
        float(model.decode_head.contrast.loss.temperature)
    )
    features = torch.randn(1, found.in_channels, 2, 2)
    query = found.embed(features.movedim(1, -1).flatten(0, 2))
    score = (query @ queue['samples'].T / found.temperature).exp()
    mean = torch.stack([score[:, queue['labels'] == c].mean(1) for c in range(13)], 1)
    mean = mean[:, found.num_keys > 0]
    expected = (mean / mean.sum(1, keepdim=True)).log()
    expected += (found.num_keys > 0).sum().log() - torch.tensor(13.0).log()
    ours = found(features)[0].flatten(1).T[:, found.num_keys > 0]
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)
    # The train set need not be there: the names are the checkpoint's, else the data set's.
    names = found.classes
    moved = copy.deepcopy(cfg)
    moved.train_dataloader.dataset = dict(
        type='BaseSegDataset',
        data_prefix=dict(img_path=str(tmp_path / 'empty')),
        metainfo=dict(classes=names),
    )
    assert memory_of_queue(moved, files[1]).classes == names
    content['meta'] = dict(dataset_meta=dict(classes=[name.upper() for name in names]))
    torch.save(content, tmp_path / 'named.pth')
    moved.train_dataloader = None
    assert memory_of_queue(moved, tmp_path / 'named.pth').classes[1] == 'DISC'
    # It is chosen with as any other.
    assert choose(cfg, files[1], memory=out, choice='memory').point.memory_weight > 0
    assert main(['memory', *files, '--from-queue', '--features', 'raw', '--force']) == 1
    assert 'leave --features raw out' in capsys.readouterr().err


def test_the_iou_rule_with_a_memory_and_cross_fitting(folder, cfg, file, tmp_path):
    found = choose(cfg, folder / 'soft.pth', memory=file, choice='memory and IoU rule')
    found.save(tmp_path)
    rows, point = found.rows['memory and IoU rule'], tmp_path / 'operating_point.json'
    assert_tests_as_chosen(rows, cfg, folder / 'soft.pth', tmp_path, operating_point=point)
    memory = ClassMemory.load(file)
    folded = choose(cfg, folder / 'soft.pth', memory=memory, folds=3, choice='natural')
    assert set(folded.values) == set(found.values) and not folded.point.memory_weight
    # Without a memory the same candidates are what they were.
    plain = choose(cfg, folder / 'soft.pth', folds=3)
    assert plain.values == {name: folded.values[name] for name in plain.values}
    assert 'memory' not in plain.table and 'memory' in folded.table


@pytest.mark.parametrize('split', ['train', 'test'])
def test_a_memory_of_the_images_that_judge_is_said(folder, cfg, split):
    checkpoint = folder / 'soft.pth'
    memory = make_memory(cfg, checkpoint, split=split, per_class=4)
    said = []
    choose(cfg, checkpoint, memory=memory, warn=said.append)
    found = [
        text for text in said if re.match(r'the memory holds pixels of \d images of test', text)
    ]
    assert len(found) == (split == 'test')


def test_sliding_inference_reads_as_it_was_chosen(folder, cfg, tmp_path):
    cfg.model.test_cfg = dict(mode='slide', crop_size=(48, 48), stride=(32, 32))
    made = make_memory(cfg, folder / 'soft.pth', per_class=20)
    found = choose(cfg, folder / 'soft.pth', memory=made, choice='memory')
    found.save(tmp_path)
    rows, point = found.rows['memory'], tmp_path / 'operating_point.json'
    assert_tests_as_chosen(rows, cfg, folder / 'soft.pth', tmp_path, operating_point=point)
    assert int(made.num_keys.max()) == 16 and made.origins.position.max() < 1


def test_keys_are_embedded_features_of_their_class(folder, cfg):
    """Each key is found again where its origin says, in the network's own feature map."""
    made = make_memory(cfg, folder / 'soft.pth', per_class=3, per_image=2, centers=None)
    model = load_model(cfg, folder / 'soft.pth')
    seen = []
    model.decode_head.conv_seg.register_forward_hook(lambda _, inputs, out: seen.append(inputs[0]))
    stored = made.keys[made.log_share.isfinite()]
    for batch in split_loader(read_config(cfg), 'train', num_workers=0):
        sample = batch['data_samples'][0]
        if sample.img_path not in made.origins.images:
            continue
        seen.clear()
        with torch.no_grad():
            model.test_step(batch)
        height, width = seen[0].shape[2:]
        labels = sample.gt_sem_seg.data[0]
        image = made.origins.images.index(sample.img_path)
        for key in (made.origins.image == image).nonzero()[:, 0].tolist():
            row, column = (made.origins.position[key] * torch.tensor([height, width])).long()
            feature = seen[0][:, :, row, column]
            torch.testing.assert_close(
                stored[key], model.decode_head.contrast.projector(feature)[0], atol=1e-4, rtol=1e-4
            )
            step = labels.shape[0] // height
            assert labels[row * step, column * step] == made.key_labels[key]
    assert made.report['num_images'] == 12


def test_raw_features_of_a_stock_head(folder, cfg, tmp_path):
    head = cfg.model.decode_head
    cfg.model.decode_head = dict(head, type='mmseg.FCNHead')
    for name in ('contrast', 'class_prior', 'tau_test'):
        cfg.model.decode_head.pop(name, None)
    state = torch.load(folder / 'soft.pth')['state_dict']
    stock = {k: v for k, v in state.items() if 'contrast' not in k and 'score_reader' not in k}
    torch.save({'state_dict': stock}, tmp_path / 'stock.pth')
    made = make_memory(cfg, tmp_path / 'stock.pth', temperature=0.2)
    assert made.report['features'] == 'raw' and made.projector is None
    assert float(made.temperature) == pytest.approx(0.2)
    found = choose(cfg, tmp_path / 'stock.pth', memory=made, choice='memory')
    found.save(tmp_path / 'point')
    found.embed(tmp_path / 'stock.pth', tmp_path / 'in.pth')
    rows, point = found.rows['memory'], tmp_path / 'point/operating_point.json'
    assert_tests_as_chosen(rows, cfg, tmp_path / 'stock.pth', tmp_path, operating_point=point)
    # The embedded one needs the segmentor that reads it.
    cfg.model.type = 'mmseg.LTMIEncoderDecoder'
    assert_tests_as_chosen(rows, cfg, tmp_path / 'in.pth', tmp_path)
    with pytest.raises(ValueError, match='no contrastive term'):
        make_memory(cfg, tmp_path / 'stock.pth', features='embedded')


@pytest.mark.parametrize('change', ['absent', 'wider'])
def test_a_projector_that_was_not_trained_embeds_nothing(folder, cfg, tmp_path, change):
    state = torch.load(folder / 'soft.pth')['state_dict']
    for name in [name for name in state if '.contrast.' in name]:
        if change == 'absent':
            del state[name]
        elif '.projector.' in name:
            state[name] = torch.cat([state[name], state[name]])
    torch.save({'state_dict': state}, tmp_path / 'without.pth')
    assert make_memory(cfg, tmp_path / 'without.pth').report['features'] == 'raw'
    with pytest.raises(ValueError, match='the checkpoint has no contrastive term, or one of'):
        make_memory(cfg, tmp_path / 'without.pth', features='embedded')
    with pytest.raises(ValueError, match='the checkpoint has no contrastive term, or one of'):
        memory_of_queue(cfg, tmp_path / 'without.pth')


def test_labels_of_training_are_read_where_those_of_testing_are_not(folder, cfg):
    expected = make_memory(cfg, folder / 'soft.pth').keys
    load = cfg.test_dataloader.dataset.pipeline
    cfg.test_dataloader.dataset.pipeline = [s for s in load if s.type != 'LoadAnnotations']
    assert torch.equal(make_memory(cfg, folder / 'soft.pth').keys, expected)


def test_a_stopped_run_goes_on(folder, cfg, tmp_path, monkeypatch):
    part = tmp_path / 'memory.drawn'
    how = dict(per_class=9, centers=None)
    whole = make_memory(cfg, folder / 'soft.pth', **how)
    monkeypatch.setattr(memory, 'IMAGES_PER_PART', 3)
    pixels = memory.pixels_of

    def stopping(*args):
        for place, found in enumerate(pixels(*args)):
            if place == 7:
                raise KeyboardInterrupt
            yield found

    monkeypatch.setattr(memory, 'pixels_of', stopping)
    with pytest.raises(KeyboardInterrupt):
        make_memory(cfg, folder / 'soft.pth', part=part, **how)
    with pytest.raises(ValueError, match='is of a run with another checkpoint, data set or other'):
        make_memory(cfg, folder / 'soft.pth', part=part, per_class=10)
    resized = copy.deepcopy(cfg)
    resized.test_dataloader.dataset.pipeline.insert(1, dict(type='Resize', scale=(96, 96)))
    redrawn = copy.deepcopy(cfg)
    redrawn.train_dataloader.dataset.seed = 3
    for other in (resized, redrawn):
        with pytest.raises(ValueError, match='is of a run with another checkpoint, data set or'):
            make_memory(other, folder / 'soft.pth', part=part, **how)
    seen = []

    def watched(*args):
        for found in pixels(*args):
            seen.append(found['image'])
            yield found

    monkeypatch.setattr(memory, 'pixels_of', watched)
    found = make_memory(cfg, folder / 'soft.pth', part=part, **how)
    assert seen == list(range(6, 12)) and not part.exists()
    assert torch.equal(found.keys, whole.keys) and found.origins.images == whole.origins.images


def test_what_was_drawn_is_kept_until_the_memory_is_written(folder, tmp_path, monkeypatch, capsys):
    out = tmp_path / 'memory.pth'
    command = ['memory', str(folder / 'small.py'), str(folder / 'soft.pth'), '--out', str(out)]

    def full(*args):
        raise OSError(28, 'No space left on device')

    with monkeypatch.context() as patched:
        patched.setattr(memory, 'with_centers', full)
        assert main(command) == 1
    with monkeypatch.context() as patched:
        patched.setattr(ClassMemory, 'save', full)
        assert main(command) == 1
    shown = capsys.readouterr()
    assert '| disc' in shown.out and 'No space left' in shown.err and not out.exists()
    # The same command goes on from it, and no image is read again.
    seen, pixels = [], memory.pixels_of
    monkeypatch.setattr(memory, 'pixels_of', lambda *args: seen.extend(args[2]) or pixels(*args))
    assert main(command) == 0
    assert not seen and [file.name for file in tmp_path.iterdir()] == ['memory.pth']
    assert torch.equal(
        ClassMemory.load(out).keys,
        make_memory(str(folder / 'small.py'), folder / 'soft.pth').keys,
    )


def test_a_choice_leaves_nothing_of_an_earlier_one(folder, file, tmp_path, capsys):
    out = tmp_path / 'point'
    plain = ['choose', str(folder / 'small.py'), str(folder / 'soft.pth'), '--out', str(out)]
    plain += ['--force']
    with_memory = [*plain, '--memory', str(file), '--choose', 'memory']
    assert main(with_memory) == 0
    assert (out / 'class_memory.pth').is_file() and (out / 'per_class/memory.json').is_file()
    (out / 'per_class/own.json').touch()
    # Not what this one reads.
    given = [*plain, '--memory', str(out / 'class_memory.pth'), '--choose', 'natural']
    assert main(given) == 0 and (out / 'class_memory.pth').is_file()
    assert main(with_memory) == 0 and main([*plain, '--choose', 'natural']) == 0
    assert not (out / 'class_memory.pth').exists()
    rows = {path.stem for path in (out / 'per_class').iterdir()}
    assert 'natural' in rows and 'own' in rows
    assert not rows & {'memory', 'memory_and_tau', 'memory_and_IoU_rule'}
    # A memory that was made there is nobody's copy, whichever choices come after.
    (out / 'class_memory.pth').write_bytes(file.read_bytes())
    assert main([*given[:-1], 'memory']) == 0
    assert main([*plain, '--choose', 'natural']) == 0
    assert (out / 'class_memory.pth').read_bytes() == file.read_bytes()
    # Nor is it replaced without being asked for.
    other = tmp_path / 'other'
    other.mkdir()
    (other / 'class_memory.pth').touch()
    assert main([*with_memory[:4], str(other), '--memory', str(file)]) == 1
    assert 'class_memory.pth exists' in capsys.readouterr().err


def test_centers_stand_for_their_pixels(folder, cfg):
    every = make_memory(cfg, folder / 'soft.pth', per_class=40, centers=None)
    few = with_centers(every, 4)
    assert int(few.num_keys.max()) == 4 and few.report['centers'] == 4
    torch.testing.assert_close(few.log_share.exp().sum(1), (few.num_keys > 0).float())
    norm = few.keys[few.log_share.isfinite()].norm(dim=1)
    torch.testing.assert_close(norm, torch.ones_like(norm))
    # Of as many centers as pixels nothing changes.
    features = torch.randn(1, every.in_channels, 4, 4)
    torch.testing.assert_close(with_centers(every, 40)(features), every(features))
    # Equal keys make clusters that are empty.
    flat = ClassMemory(torch.ones(20, 4), torch.zeros(20).long(), 2, 0.1)
    assert with_centers(flat, 8).num_keys.tolist() == [1, 0]


def test_another_checkpoint_or_width_is_refused(folder, cfg, file, tmp_path):
    content = torch.load(folder / 'soft.pth')
    content['state_dict']['decode_head.conv_seg.weight'] += 1
    torch.save(content, tmp_path / 'other.pth')
    with pytest.raises(ValueError, match='class_memory.pth is of another checkpoint'):
        choose(cfg, tmp_path / 'other.pth', memory=file)
    other = ClassMemory(torch.randn(13, 5), torch.arange(13), 13, 0.1)
    with pytest.raises(ValueError, match='the memory is of another model: it reads 5 channels'):
        choose(cfg, folder / 'soft.pth', memory=other)
    with pytest.raises(ValueError, match='cannot be chosen without a memory'):
        choose(cfg, folder / 'soft.pth', choice='memory')
    with pytest.raises(ValueError, match='temperature=0'):  # before anything is read
        make_memory(cfg, tmp_path / 'none.pth', temperature=0)
    with pytest.raises(ValueError, match='temperature=-1'):
        memory_of_queue(cfg, tmp_path / 'none.pth', temperature=-1)
    for bad in (dict(centers=0), dict(per_class=0), dict(features='deep')):
        with pytest.raises(ValueError, match=f'{next(iter(bad))}='):
            make_memory(cfg, folder / 'soft.pth', **bad)
    found = choose(cfg, folder / 'soft.pth', memory=file, choice='memory')
    found.save(tmp_path / 'point')
    (tmp_path / 'point/class_memory.pth').unlink()
    with pytest.raises(FileNotFoundError, match='class_memory.pth does not exist'):
        point = tmp_path / 'point/operating_point.json'
        runs.test(cfg, folder / 'soft.pth', tmp_path / 'test', operating_point=point)


def test_training_ends_it_and_conversion_refuses_it(folder, cfg, file, tmp_path):
    found = choose(cfg, folder / 'soft.pth', memory=file, choice='memory')
    found.embed(folder / 'soft.pth', tmp_path / 'in.pth')
    with pytest.raises(ValueError, match='holds a memory'):
        convert(tmp_path / 'in.pth', tmp_path / 'stock.pth')
    model = MODELS.build(Config.fromfile(folder / 'small.py').model)
    model.load_state_dict(torch.load(tmp_path / 'in.pth')['state_dict'])
    assert model.decode_head.score_reader.memory is not None
    sample = split_loader(read_config(cfg), 'val', num_workers=0).dataset[0]
    data = model.data_preprocessor(
        {'inputs': [sample['inputs']], 'data_samples': [sample['data_samples']]}, True
    )
    model.train().loss(**data)
    assert model.decode_head.score_reader.memory is None


def test_an_exported_model_reads_it_too(folder, cfg, file, tmp_path):
    found = choose(cfg, folder / 'soft.pth', memory=file, choice='memory and tau')
    found.save(tmp_path)
    cfg.model.update(
        type='mmseg.LTMIEncoderDecoder', operating_point=str(tmp_path / 'operating_point.json')
    )
    model = MODELS.build(cfg.model).eval()
    model.load_state_dict(torch.load(folder / 'soft.pth')['state_dict'], strict=False)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        scores = ReadScores(model)(images)
        traced = torch.jit.trace(ReadScores(model), images)(images)
        torch.testing.assert_close(traced, scores)
        logits = model.encode_decode(images, [dict(img_shape=(64, 64), ori_shape=(64, 64))])
    upsampled = torch.nn.functional.interpolate(scores, (64, 64), mode='bilinear')
    torch.testing.assert_close(logits, upsampled, rtol=1e-4, atol=1e-4)


def test_a_page_of_pixels_and_their_nearest_stored_pixels(folder, cfg, file, tmp_path, capsys):
    files = [str(folder / 'small.py'), str(folder / 'soft.pth'), '--memory', str(file)]
    page = tmp_path / 'page.png'
    assert main(['explain', *files, '--page', str(page), '--classes', 'disc', 'background']) == 0
    assert f'in {page}' in capsys.readouterr().out
    assert page.read_bytes()[:4] == b'\x89PNG' and page.stat().st_size > 5000

    # A pixel of the train set is nearest to itself, and its surroundings are of its image.
    every = make_memory(cfg, folder / 'soft.pth', per_class=10**6, per_image=10**6, centers=None)
    rows = find_neighbors(cfg, folder / 'soft.pth', every, 'train', ['disc'], per_class=3)
    assert rows and all(row.truth == 'disc' for row in rows)
    for row in rows:
        patch, name, similarity = row.keys[0]
        assert similarity == pytest.approx(1, abs=1e-4) and len(row.keys) == 5
        assert name != 'disc' or (patch == row.patch).all() or row.keys[1][2] > 0.999
        assert patch.shape == row.patch.shape == (13, 13, 3)

    other = ClassMemory.load(file)
    other.origins = other.origins._replace(images=('gone.png',) * len(other.origins.images))
    with pytest.raises(FileNotFoundError, match='gone.png cannot be read: were images moved'):
        find_neighbors(cfg, folder / 'soft.pth', other)
    other.origins = None
    with pytest.raises(ValueError, match='does not say where its pixels come from'):
        find_neighbors(cfg, folder / 'soft.pth', other)
    # The table is there, whatever becomes of the page.
    cfg.test_dataloader.dataset.indices = [0]
    cfg.dump(tmp_path / 'one.py')
    (sample,) = (d['data_samples'][0] for d in split_loader(cfg, 'test'))
    absent = next(c for c in range(13) if not (sample.gt_sem_seg.data == c).any())
    name = LongTailShapesDataset.METAINFO['classes'][absent]
    pages = ['--page', str(tmp_path / 'none.png'), '--classes', name]
    assert main(['explain', str(tmp_path / 'one.py'), *files[1:], *pages]) == 1
    shown = capsys.readouterr()
    assert 'background' in shown.out and f"the test split has no pixel of ['{name}']" in shown.err
    assert main(['explain', *files[:2], '--page', str(page)]) == 1
    assert 'go with --memory FILE' in capsys.readouterr().err
