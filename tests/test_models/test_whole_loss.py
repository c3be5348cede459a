"""The whole objective against its formulas, written naively in float64, with all gradients."""

import copy
import math

import pytest
import torch
from mmseg.registry import MODELS
from tiny import COUNTS, batch, segmentor, total
from torch import nn

from mmseg_ltmi import ClassPrior

GAMMA, BETA, ALPHA, START = 0.7, 0.4, 0.9, 0.2
CLASSES = len(COUNTS)


def resized(channel, size):
    """Bilinear, from pixel centres, written out for one channel (H, W)."""
    rows = []
    for y in range(size[0]):
        row = []
        for x in range(size[1]):
            place = []
            for i, (n, length) in enumerate(zip((y, x), size, strict=True)):
                p = max((n + 0.5) * channel.shape[i] / length - 0.5, 0)
                low = min(int(p), channel.shape[i] - 1)
                place.append((low, min(low + 1, channel.shape[i] - 1), p - low))
            (y0, y1, b), (x0, x1, a) = place
            top = (1 - a) * channel[y0, x0] + a * channel[y0, x1]
            bottom = (1 - a) * channel[y1, x0] + a * channel[y1, x1]
            row.append((1 - b) * top + b * bottom)
        rows.append(torch.stack(row))
    return torch.stack(rows)


def resized_all(maps, size):
    return torch.stack([torch.stack([resized(c, size) for c in image]) for image in maps])


def cross_entropy(joint, label):
    """``joint`` maps a class to its log joint probability, up to one constant."""
    return torch.stack(list(joint.values())).exp().sum().log() - joint[label]


def supervised(logits, labels, log_prior):
    scores = resized_all(logits, labels.shape[1:])
    losses = [
        cross_entropy(dict(enumerate(scores[b, :, y, x] + log_prior)), int(labels[b, y, x]))
        for b in range(len(labels))
        for y in range(labels.shape[1])
        for x in range(labels.shape[2])
        if labels[b, y, x] != 255
    ]
    return sum(losses) / len(losses)


def mixture(query, query_labels, query_ids, key, key_labels, key_ids, temperature, held_out):
    """The contrastive loss; class-balanced queries, so the prior is uniform."""
    losses = []
    for i in range(len(query)):
        joint = {}
        for c in range(CLASSES):
            mine = [
                (query[i] * key[j]).sum() / temperature
                for j in range(len(key))
                if key_labels[j] == c and not (held_out and key_ids[j] == query_ids[i])
            ]
            if mine:
                joint[c] = torch.stack(mine).exp().mean().log() + math.log(1 / CLASSES)
        if int(query_labels[i]) in joint:
            losses.append(cross_entropy(joint, int(query_labels[i])))
    return sum(losses) / len(losses)


def distilled(student, teacher, labels, temperature=4.0):
    losses = []
    for b, y, x in (labels != 255).nonzero().tolist():
        s = (student[b, :, y, x] / temperature).exp()
        t = (teacher[b, :, y, x] / temperature).exp()
        s, t = s / s.sum(), t / t.sum()
        losses.append((t * (t / s).log()).sum())
    return temperature**2 * sum(losses) / len(losses)


def embedded(network, features):
    out = network[2](torch.relu(network[0](features)))
    return out / out.pow(2).sum(1, keepdim=True).sqrt()


def reference(model, inputs, samples, drawn, queue):
    """All four terms from the student's and the teacher's own features."""
    head = model.decode_head
    x = model.extract_feat(inputs)
    features = head._forward_feature(x)
    logits = head.conv_seg(features)
    network = model.teacher.network
    with torch.no_grad():
        taught = network.decode_head._forward_feature(network.extract_feat(inputs))
        taught_logits = network.decode_head.conv_seg(taught)
    size = features.shape[2:]
    labels = torch.stack([sample.gt_sem_seg.data[0] for sample in samples])
    strides = [a // b for a, b in zip(labels.shape[1:], size, strict=True)]
    small = labels[:, :: strides[0], :: strides[1]]  # the first pixel of a cell
    log_prior = ClassPrior(COUNTS).log_probs().double()  # smoothed

    taught, taught_logits = (resized_all(m, size) for m in (taught, taught_logits))
    flat = features.movedim(1, -1).reshape(-1, features.shape[1])
    keys = taught.movedim(1, -1).reshape(-1, taught.shape[1])
    # Each of the queue's slots must hold the teacher's feature of the pixel that its id names.
    held = queue['labels'] >= 0
    torch.testing.assert_close(queue['samples'][held], keys[queue['ids'][held]])
    assert (queue['labels'][held] == small.flatten()[queue['ids'][held]]).all()

    query = embedded(head.contrast.projector, flat[drawn.pixel])
    key = embedded(head.contrast.key_projector, queue['samples'])
    log_t = head.contrast.loss.log_temperature
    arguments = (drawn.labels, drawn.pixel)
    stored = (queue['labels'], queue['ids'])
    contrast = mixture(query, *arguments, key, *stored, log_t.detach().exp(), False)
    temperature = mixture(
        query.detach(), *arguments, key.detach(), *stored, log_t.exp(), held_out=True
    )
    return {
        'decode.loss_ltmi': GAMMA * supervised(logits, labels, log_prior),
        'decode.loss_contrast': BETA * (contrast + temperature),
        'loss_distill': ALPHA * distilled(logits, taught_logits, small),
    }


@pytest.mark.parametrize('classifier', [None, dict(type='cosine', scale=5)])
@pytest.mark.parametrize('kind', ['frozen', 'EMA'])
def test_whole_loss_and_all_gradients(kind, classifier, tmp_path):
    torch.manual_seed(0)
    config = segmentor(head=dict(classifier=classifier))
    head = config['decode_head']
    head['loss_decode'] = {**head['loss_decode'], 'loss_weight': GAMMA}
    head['contrast'] = {
        **head['contrast'], 'loss': dict(temperature=START, loss_weight=BETA)
    }  # fmt: skip
    teacher = dict(type='EMA')
    if kind == 'frozen':  # wider, deeper and on another stride
        other = segmentor(50, 12, ltmi=False, index=0)
        trained = MODELS.build(copy.deepcopy(other))
        torch.nn.init.normal_(trained.decode_head.conv_seg.weight)
        torch.save(trained.state_dict(), tmp_path / 'teacher.pth')
        teacher = dict(config=dict(model=other), checkpoint=str(tmp_path / 'teacher.pth'))
    config.update(type='DistilledEncoderDecoder', teacher=teacher, alpha=ALPHA)
    model = MODELS.build(config).double()
    torch.nn.init.normal_(model.decode_head.conv_seg.weight)
    # In evaluation mode BatchNorm does not change what the second pass sees.
    for module in model.train().modules():
        if isinstance(module, (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)):
            module.eval()
    if kind == 'EMA':
        model.teacher.steps.fill_(1)  # at 0 it would become the student itself
    inputs, samples = batch(number=2, size=32)
    inputs = inputs.double()

    drawn = []
    contrast = model.decode_head.contrast
    contrast.sampler.register_forward_hook(lambda *call: drawn.append(call[-1]))
    ours = model.loss(inputs, samples)
    total(ours).backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    expected = reference(model, inputs, samples, drawn[0], dict(contrast.queue.named_buffers()))
    total(expected).backward()

    for name, value in expected.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-6, atol=0)
    assert len(gradients) > 20 and 'decode_head.contrast.loss.log_temperature_change' in gradients
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            error = (gradients[name] - parameter.grad).norm()
            assert error <= 1e-6 * parameter.grad.norm() + 1e-12, name
            assert parameter.grad.any(), name
