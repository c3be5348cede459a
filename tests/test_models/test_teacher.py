"""Students and their teachers, frozen and averaged."""

import copy

import pytest
import torch
import torch.nn.functional as F
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.runner import load_state_dict
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from tiny import CONTRAST, COUNTS, LOSS, batch, segmentor, total

import mmseg_ltmi  # noqa: F401
from mmseg_ltmi.apis.convert import convert
from mmseg_ltmi.core.posterior import ClassMemory, OperatingPoint
from mmseg_ltmi.models.segmentors import EMATeacher, FrozenTeacher, last_head
from mmseg_ltmi.models.segmentors.teacher_files import build_head, read_model

EMA = dict(type='EMA', momentum=0.9)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
    hub = MessageHub.get_current_instance()
    hub.update_info('dataset_meta', None)


@pytest.fixture
def frozen(tmp_path):
    return save_teacher(tmp_path, segmentor(34, 24, ltmi=False))


def save_teacher(folder, config, **meta):
    model = MODELS.build(copy.deepcopy(config))
    torch.nn.init.normal_(last_head(model).conv_seg.weight)
    file = folder / 'teacher.pth'
    torch.save(dict(meta=meta, state_dict=model.state_dict()), file)
    return dict(config=dict(model=config), checkpoint=str(file))


def student(teacher, alpha=1.0, **kwargs):
    more = dict(type='DistilledEncoderDecoder', teacher=teacher, alpha=alpha)
    return MODELS.build(segmentor(**kwargs, **more)).train()


def step(model, data, lr=0.1):
    losses = model.loss(*data)
    model.zero_grad()
    total(losses).backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= lr * parameter.grad
    return losses


def test_frozen_teacher_is_no_part_of_the_student(frozen):
    model = student(frozen)
    assert isinstance(model.teacher, FrozenTeacher)
    plain = MODELS.build(segmentor(type='LTMIEncoderDecoder'))
    extra = set(model.state_dict()) - set(plain.state_dict())
    assert extra and all('key_projector' in key for key in extra)
    assert {id(p) for p in model.teacher.network.parameters()}.isdisjoint(
        id(p) for p in model.parameters()
    )
    before = {k: v.clone() for k, v in model.teacher.network.state_dict().items()}
    for seed in range(2):
        losses = step(model, batch(seed))
    assert {'decode.loss_ltmi', 'decode.loss_contrast', 'loss_distill'} <= set(losses)
    for key, value in model.teacher.network.state_dict().items():
        assert torch.equal(value, before[key])
    assert not model.teacher.network.training and not model.teacher.training
    assert all(p.grad is not None for p in model.parameters())
    assert model.decode_head.contrast.queue.samples.shape == (64, 24)


def test_queue_holds_the_teachers_features_and_embeds_them_anew(frozen):
    model = student(frozen)
    inputs, samples = batch()
    model.loss(inputs, samples)
    queue, contrast = model.decode_head.contrast.queue, model.decode_head.contrast
    features = model.teacher(inputs, samples, model).features
    flat = features.movedim(1, -1).reshape(-1, 24)
    held = queue.labels >= 0
    assert held.any()
    torch.testing.assert_close(queue.samples[held], flat[queue.ids[held]])
    before = contrast.key_projector[0].weight.detach().clone()
    step(model, batch(1))
    assert (contrast.key_projector[0].weight != before).any()


def test_ema_is_the_moving_average_of_weights_and_buffers():
    model = student(EMA, alpha=0.0)
    assert isinstance(model.teacher, EMATeacher)
    # Weights that come after the model was built, as a pretrained backbone's do.
    torch.nn.init.normal_(model.decode_head.conv_seg.weight)
    expected = None
    for seed in range(4):
        now = {k: v.clone() for k, v in model.state_dict().items()}
        step(model, batch(seed))
        average = model.teacher.network.state_dict()
        if expected is None:
            expected = {k: now[k].clone() for k in average}
        for key, value in expected.items():
            if value.is_floating_point():
                expected[key] = 0.9 * value + 0.1 * now[key]
            else:
                expected[key] = now[key]
            torch.testing.assert_close(average[key], expected[key], atol=1e-6, rtol=1e-5)
    assert any('running_var' in key for key in expected)
    assert all(not p.requires_grad for p in model.teacher.parameters())


def test_ema_teacher_is_saved_and_goes_on_exactly():
    first = student(EMA)
    for seed in range(2):
        step(first, batch(seed))
    state = copy.deepcopy(first.state_dict())
    assert 'teacher.steps' in state and any(k.startswith('teacher.network.backbone') for k in state)
    second = student(EMA)
    second.load_state_dict(state)
    for model in (first, second):
        torch.manual_seed(5)
        for seed in (2, 3):
            step(model, batch(seed))
    torch.testing.assert_close(
        first.state_dict(), second.state_dict(), rtol=0, atol=0, equal_nan=True
    )


@pytest.mark.parametrize('change', ['another number of classes', 'a layer is missing'])
def test_an_average_that_does_not_fit_begins_anew(change):
    """Or most of what was left out of the load, random as it is, would stay for long."""
    first = student(EMA)
    step(first, batch())
    state = copy.deepcopy(first.state_dict())
    if change == 'a layer is missing':
        del state['teacher.network.decode_head.convs.0.conv.weight']
    else:
        for name in [name for name in state if 'conv_seg' in name]:
            state[name] = torch.cat([state[name], state[name]])
    second = student(EMA)
    load_state_dict(second, state, strict=False)
    assert second.teacher.steps == 0
    torch.nn.init.normal_(second.decode_head.conv_seg.weight)
    now = {k: v.clone() for k, v in second.state_dict().items()}
    step(second, batch(1))
    for name, value in second.teacher.network.state_dict().items():
        torch.testing.assert_close(value, now[name], rtol=0, atol=0)


def test_ema_follows_the_model_to_another_dtype_and_is_copied_with_it():
    model = student(EMA).double()
    inputs, samples = batch()
    model.loss(inputs.double(), samples)
    assert model.teacher.network.decode_head.conv_seg.weight.dtype == torch.float64
    copied = copy.deepcopy(model)
    assert copied.teacher is not model.teacher


def test_frozen_teacher_is_shared_by_copies_and_follows_the_model(frozen):
    model = student(frozen)
    model.loss(*batch())
    assert copy.deepcopy(model).teacher is model.teacher
    model.double()
    assert next(model.teacher.network.parameters()).dtype == torch.float64


@pytest.mark.smoke
def test_deeper_head_on_another_stride_and_normalization(tmp_path):
    config = segmentor(50, 24, ltmi=False, index=0)
    config['data_preprocessor'].update(mean=[1, 2, 3], std=[4, 5, 6], bgr_to_rgb=True)
    teacher = save_teacher(tmp_path, config)
    model = student(teacher)
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    data = dict(inputs=[image], data_samples=batch(number=1)[1])
    own = model.data_preprocessor(copy.deepcopy(data), training=True)
    said = model.teacher(own['inputs'], own['data_samples'], model)
    network = model.teacher.network
    theirs = network.data_preprocessor(copy.deepcopy(data), training=True)
    with torch.no_grad():
        expected = network(theirs['inputs'], mode='tensor')
    torch.testing.assert_close(said.logits, expected, atol=1e-3, rtol=1e-3)
    assert said.features.shape == (1, 24, 16, 16)
    losses = step(model, batch())
    assert total(losses).isfinite()
    assert model.decode_head.contrast.queue.samples.shape == (64, 24)


def test_cascade_student_and_ltmi_teacher(tmp_path):
    teacher = save_teacher(tmp_path, segmentor(18, 24))
    config = segmentor()
    coarse = {k: v for k, v in config['decode_head'].items() if k != 'contrast'}
    fine = dict(
        type='LTMIOCRHead', in_channels=128, in_index=1, channels=8, ocr_channels=4,
        num_classes=4, norm_cfg=dict(type='BN'), loss_decode=LOSS,
        contrast=config['decode_head']['contrast'],
    )  # fmt: skip
    config.update(
        type='DistilledCascadeEncoderDecoder', num_stages=2, decode_head=[coarse, fine],
        teacher=teacher, alpha=0.5,
    )  # fmt: skip
    model = MODELS.build(config).train()
    losses = step(model, batch())
    assert {'decode_1.loss_contrast', 'loss_distill'} <= set(losses)
    # A cascade can teach as well.
    config = dict(config, type='CascadeEncoderDecoder')
    del config['teacher'], config['alpha']
    step(student(save_teacher(tmp_path, config)), batch())


def test_distillation_compares_like_with_like(tmp_path):
    """A teacher that was trained with plain cross-entropy gives natural scores."""
    plain = segmentor(18, 8, ltmi=False, head=dict(loss_decode=dict(type='CrossEntropyLoss')))
    model = student(save_teacher(tmp_path, plain))
    network = model.teacher.network
    model.load_state_dict(network.state_dict(), strict=False)
    with torch.no_grad():
        # The student's raw scores are the teacher's, less the log-prior.
        model.decode_head.conv_seg.bias -= torch.tensor(COUNTS).float().div(100).log()
    for module in model.modules():  # the statistics of the teacher, in a step of training
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    losses = model.loss(*batch())
    assert losses['loss_distill'].abs() < 1e-5
    # The same checkpoint under an LTMI config is a stock one still; an LTMI one has its shift.
    log_prior = torch.tensor(COUNTS).float().div(100).log()
    stock = dict(config=dict(model=segmentor(18, 8)), checkpoint=model.teacher.checkpoint)
    for teacher, shift in ((stock, 0 * log_prior), (None, log_prior)):
        again = student(teacher or save_teacher(tmp_path, segmentor(18, 8)))
        again.teacher.load()
        torch.testing.assert_close(again.teacher.natural_shift, shift, atol=1e-3, rtol=0)


@pytest.mark.parametrize('tau', [0.0, 1.0])
def test_a_converted_teacher_is_natural_whatever_tau_was_folded_in(tmp_path, tau):
    ltmi = segmentor(type='LTMIEncoderDecoder')
    trained = save_teacher(tmp_path, ltmi)
    file = tmp_path / 'stock.pth'
    convert(trained['checkpoint'], file, tau)
    state = torch.load(file)['state_dict']
    stock = segmentor(ltmi=False)
    teacher = student(dict(config=dict(model=stock), checkpoint=str(file))).teacher
    reader = MODELS.build(dict(stock, type='LTMIEncoderDecoder'))
    reader.load_state_dict(state, strict=False)
    reader, expected = reader.eval().reader, MODELS.build(ltmi).eval()
    expected.load_state_dict(torch.load(trained['checkpoint'])['state_dict'])
    with torch.no_grad():
        raw = teacher.network.encode_decode(batch()[0], [dict(img_shape=(64, 64))])
        natural = expected.encode_decode(batch()[0], [dict(img_shape=(64, 64))])
        for shift in (teacher.natural_shift, reader.natural_shift):
            found = raw + shift.view(1, -1, 1, 1)
            torch.testing.assert_close(found.log_softmax(1), natural.log_softmax(1))
        torch.testing.assert_close(reader(raw), raw)


def test_a_memory_is_not_taught():
    source = MODELS.build(segmentor(type='LTMIEncoderDecoder', head=dict(contrast=None)))
    keys = torch.randn(8, source.decode_head.conv_seg.in_channels)
    source.reader.set_memory(ClassMemory(keys, torch.arange(8) % 4, 4, 0.1), 1.0)
    output = EMATeacher(source)(*batch(), source.eval())
    classifier = source.decode_head.conv_seg
    scores = F.conv2d(output.features, classifier.weight, classifier.bias)
    torch.testing.assert_close(output.logits, scores)


def test_a_taught_student_teaches(tmp_path, frozen):
    taught = segmentor(type='DistilledEncoderDecoder', teacher=EMA, alpha=1.0)
    teacher = save_teacher(tmp_path, taught)
    losses = step(student(teacher, head=dict(contrast=CONTRAST)), batch())
    assert {'decode.loss_contrast', 'loss_distill'} <= set(losses)


def test_teacher_of_an_ltmi_head_without_contrast_distills(frozen):
    losses = step(student(frozen, head=dict(contrast=None)), batch())
    assert 'loss_distill' in losses and 'decode.loss_contrast' not in losses


def test_teacher_sees_the_second_view(frozen):
    model = student(frozen)
    seen = []
    model.teacher.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    inputs, samples = batch()
    model.loss(inputs, samples)
    assert seen[-1] is inputs
    views = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    for sample, view in zip(samples, views, strict=True):
        sample.set_data(dict(second_view=PixelData(data=view)))
    model.loss(inputs, samples)
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in ([120, 110, 100], [60, 50, 40]))
    torch.testing.assert_close(seen[-1], (views - mean) / std)


@pytest.mark.parametrize('kind', ['frozen', 'ema'])
def test_autocast_and_all_ignored(kind, frozen):
    model = student(frozen if kind == 'frozen' else EMA)
    inputs, samples = batch()
    seen = []
    model.teacher.register_forward_hook(lambda _, __, said: seen.append(said.features.dtype))
    with torch.autocast('cpu', torch.bfloat16):
        losses = model.loss(inputs, samples)
    assert seen == [torch.bfloat16]
    assert total(losses).isfinite() and losses['loss_distill'].dtype == torch.float32
    for sample in samples:
        sample.gt_sem_seg.data.fill_(255)
    model = student(frozen if kind == 'frozen' else EMA)
    losses = step(model, (inputs, samples))
    assert total(losses) == 0
    assert all((p.grad == 0).all() for p in model.parameters() if p.requires_grad)


def test_temperature_takes_no_weight_decay_and_the_teacher_no_optimizer(frozen):
    cfg = dict(
        type='OptimWrapper',
        optimizer=dict(type='SGD', lr=0.1, weight_decay=0.5),
        paramwise_cfg=dict(custom_keys={'log_temperature': dict(decay_mult=0.0)}),
    )
    for teacher in (frozen, EMA):
        model = student(teacher)
        model.loss(*batch())
        wrapper = build_optim_wrapper(model, copy.deepcopy(cfg))
        assert isinstance(wrapper, OptimWrapper)
        temperature = model.decode_head.contrast.loss.log_temperature_change
        taught = {id(p) for p in model.teacher.network.parameters()}
        for group in wrapper.optimizer.param_groups:
            for parameter in group['params']:
                assert (group['weight_decay'] == 0) == (parameter is temperature)
                assert id(parameter) not in taught or not parameter.requires_grad


def test_a_student_predicts_without_its_teachers_weights(frozen, tmp_path):
    trained = student(frozen)
    step(trained, batch())
    (tmp_path / 'teacher.pth').unlink()
    tested = student(frozen).eval()
    tested.load_state_dict(trained.state_dict())
    deployed = MODELS.build(segmentor()).eval()
    matching = {k: v for k, v in trained.state_dict().items() if 'contrast' not in k}
    deployed.load_state_dict(matching, strict=False)
    trained.eval()
    inputs = batch()[0]
    meta = [dict(img_shape=(64, 64), ori_shape=(64, 64), padding_size=[0] * 4)] * 2
    with torch.no_grad():
        scores = [m.encode_decode(inputs, meta) for m in (trained, tested, deployed)]
    assert torch.equal(scores[0], scores[1]) and torch.equal(scores[0], scores[2])
    with pytest.raises(FileNotFoundError, match='teacher.pth.*train the teacher first'):
        tested.loss(*batch())


def test_bad_teachers(tmp_path, frozen):
    for wrong in (None, 3, dict(type='Frozen'), dict(checkpoint='a.pth'), {**EMA, **frozen}):
        with pytest.raises(ValueError, match="use dict\\(config='teacher.py'"):
            student(wrong)
    with pytest.raises(ValueError, match='no checkpoint: give the file'):
        student(dict(config=frozen['config']))
    with pytest.raises(FileNotFoundError, match='nowhere.py.*does not exist.*LTMI'):
        student(dict(config='nowhere.py', checkpoint='a.pth'))
    with pytest.raises(ValueError, match='no model with a decode_head'):
        student(dict(config=dict(a=1), checkpoint='a.pth'))
    with pytest.raises(ValueError, match='momentum.* 1.5'):
        student(dict(type='EMA', momentum=1.5))
    with pytest.raises(ValueError, match='no LTMI head.*FCNHead.*LTMIFCNHead'):
        student(frozen, ltmi=False)
    loss = dict(type='CrossEntropyLoss')
    other = segmentor(ltmi=False, head=dict(num_classes=5, loss_decode=loss))
    with pytest.raises(ValueError, match='num_classes=5.*num_classes=4'):
        student(dict(config=dict(model=other), checkpoint='a.pth'))
    masks = segmentor(
        ltmi=False,
        head=dict(type='SegmenterMaskTransformerHead', num_heads=2, num_layers=1, embed_dims=8),
    )
    for key in ('num_convs', 'concat_input', 'norm_cfg'):
        masks['decode_head'].pop(key)
    with pytest.raises(ValueError, match='no cls_seg features.*SegmenterMask'):
        student(dict(config=dict(model=masks), checkpoint='a.pth'))
    with pytest.raises(ValueError, match='(?s)does not fit teacher.config.*size mismatch'):
        student({**frozen, 'config': dict(model=segmentor(34, 16, ltmi=False))}).loss(*batch())
    torch.save(dict(state_dict=dict(other=torch.ones(1))), tmp_path / 'empty.pth')
    with pytest.raises(ValueError, match='lacks .* tensors, such as'):
        student({**frozen, 'checkpoint': str(tmp_path / 'empty.pth')}).loss(*batch())


def test_heads_without_a_pixel_map_and_nothing_to_teach(frozen):
    config = segmentor(ltmi=False)
    coarse = config['decode_head']
    point = dict(
        type='LTMIPointHead', in_channels=[128], in_index=[1], channels=8, num_fcs=1,
        num_classes=4, loss_decode=LOSS,
    )  # fmt: skip
    config.update(type='DistilledCascadeEncoderDecoder', num_stages=2, alpha=1.0)
    ltmi = {**coarse, 'type': 'LTMIFCNHead'}
    averaged = {**config, 'decode_head': [ltmi, point], 'teacher': EMA}
    with pytest.raises(ValueError, match='no cls_seg features: LTMIPointHead'):
        MODELS.build(averaged)
    taught = MODELS.build({**config, 'decode_head': [ltmi, point], 'teacher': frozen})
    assert taught.taught_head() is taught.decode_head[0]
    with pytest.raises(ValueError, match='no LTMI head with a conv_seg.*LTMIPointHead'):
        MODELS.build({**config, 'decode_head': [coarse, point], 'teacher': frozen})
    with pytest.raises(ValueError, match='nothing to teach.*alpha above 0'):
        student(frozen, alpha=0.0, head=dict(contrast=None))


def test_config_of_an_installed_package():
    """mmsegmentation's own configs can teach, by the name under which they are bases."""
    name = 'mmseg::fcn/fcn_r50-d8_4xb4-80k_ade20k-512x512.py'
    model = read_model(name)
    assert build_head(model, 150).conv_seg.in_channels == 512
    with pytest.raises(ValueError, match='num_classes=150.*num_classes=4'):
        student(dict(config=name, checkpoint='a.pth'))


def test_config_of_ones_own_package(tmp_path, monkeypatch):
    folder = tmp_path / 'own_package' / '.mim' / 'configs'
    folder.mkdir(parents=True)
    (tmp_path / 'own_package' / '__init__.py').touch()
    (folder / 'teacher.py').write_text(f'model = {segmentor(34, 24, ltmi=False)!r}')
    monkeypatch.syspath_prepend(tmp_path)
    assert build_head(read_model('own_package::teacher.py'), 4).conv_seg.in_channels == 24
    with pytest.raises(FileNotFoundError, match='own_package::no.py does not exist'):
        read_model('own_package::no.py')
    with pytest.raises(FileNotFoundError, match='there is no package no_such'):
        read_model('no_such::teacher.py')


def test_broken_checkpoints(tmp_path, frozen):
    file = tmp_path / 'teacher.pth'
    state = torch.load(file)['state_dict']
    torch.save({f'module.{key}': value for key, value in state.items()}, file)
    student(frozen).loss(*batch())
    torch.save([1, 2], file)
    with pytest.raises(ValueError, match='teacher.pth holds a list'):
        student(frozen).init_weights()
    file.write_bytes(b'not a checkpoint')
    with pytest.raises(ValueError, match='teacher.pth cannot be read as a checkpoint'):
        student(frozen).loss(*batch())


@pytest.mark.parametrize('width', [16, 12])
def test_checkpoint_of_self_keys_leaves_the_queue_empty(tmp_path, width):
    """Labels without their samples, or embeddings taken for features, would teach noise."""
    own = MODELS.build(segmentor(type='LTMIEncoderDecoder')).train()
    own.loss(*batch())
    assert own.decode_head.contrast.queue.fill() > 0
    teacher = save_teacher(tmp_path, segmentor(channels=width, ltmi=False))  # embeddings have 16
    model = student(teacher)
    load_state_dict(model, own.state_dict(), strict=False)
    queue = model.decode_head.contrast.queue
    assert queue.fill() == 0 and (queue.pointer == 0).all()
    step(model, batch())
    again = student(teacher)
    load_state_dict(again, model.state_dict(), strict=True)
    kept = again.decode_head.contrast.queue
    torch.testing.assert_close(kept.samples, queue.samples)
    assert kept.fill() == queue.fill() > 0


def test_an_averaged_student_takes_an_operating_point():
    log_prior = torch.tensor(COUNTS).float().div(100).log().tolist()
    point = OperatingPoint('tau', tuple('abcd'), tuple(log_prior), tau=0.5).to_dict()
    trained = student(EMA)
    step(trained, batch())
    tested = MODELS.build(
        segmentor(type='DistilledEncoderDecoder', teacher=EMA, operating_point=point)
    )
    load_state_dict(tested, trained.state_dict(), strict=True)
    assert tested.reader.point_shift.any()


def test_teacher_with_an_open_prior(tmp_path):
    config = segmentor(ltmi=False)
    teacher = save_teacher(tmp_path, config)
    config['decode_head']['loss_decode'] = dict(type='LogitAdjustedLoss')
    with pytest.raises(ValueError, match='class_prior=None.*name the prior'):
        student({**teacher, 'config': dict(model=config)}).loss(*batch())


def test_other_label_space(tmp_path):
    config = segmentor(ltmi=False)
    meta = dict(classes=('road', 'car', 'tree', 'pole'), reduce_zero_label=True)
    teacher = save_teacher(tmp_path, config, dataset_meta=meta)
    hub = MessageHub.get_current_instance()
    hub.update_info('dataset_meta', dict(classes=['road', 'car', 'tree', 'pole']))
    student(teacher).loss(*batch(reduce_zero_label=True))
    with pytest.raises(ValueError, match='reduce_zero_label=True.*reduce_zero_label=False'):
        student(teacher).loss(*batch(reduce_zero_label=False))
    hub.update_info('dataset_meta', dict(classes=['road', 'tree', 'car', 'pole']))
    with pytest.raises(ValueError, match="in another order: 1 is 'car' and 'tree'"):
        student(teacher).loss(*batch())
    old = save_teacher(tmp_path, config, CLASSES=('road', 'car', 'tree', 'sky'))
    with pytest.raises(ValueError, match="other classes: 3 is 'sky' and 'pole'"):
        hub.update_info('dataset_meta', dict(classes=['road', 'car', 'tree', 'pole']))
        student(old).loss(*batch())
