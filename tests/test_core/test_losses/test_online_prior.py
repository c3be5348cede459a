import os

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

import mmseg_ltmi  # noqa: F401
from mmseg_ltmi import ClassPrior
from mmseg_ltmi.core.losses import LogitAdjustedLoss
from mmseg_ltmi.datasets import CamVidDataset


def step(loss, labels, num_classes=3):
    labels = torch.tensor(labels).view(1, 1, -1)
    return loss(torch.zeros(1, num_classes, 1, labels.numel()), labels)


def test_counts_by_hand_and_no_hook_waits_for_it():
    loss = LogitAdjustedLoss('online')
    assert not loss.needs_class_prior and loss.natural_shift() is None
    # The first batch is counted before its loss: 3 of 4 are class 0.
    value = step(loss, [0, 0, 0, 1, 255])
    log_prior = torch.tensor([0.75, 0.25, 0.0]).mul(1 - 1e-6).add(1e-6 / 3).log()
    torch.testing.assert_close(loss.log_prior, log_prior)
    expected = -(3 * log_prior.log_softmax(0)[0] + log_prior.log_softmax(0)[1]) / 4
    torch.testing.assert_close(value, expected)
    step(loss, [2, 2, 2, 2])
    assert loss.online_counts.tolist() == [3, 1, 4]
    loss.eval()
    step(loss, [1, 1, 1, 1])
    assert loss.online_counts.tolist() == [3, 1, 4]
    torch.testing.assert_close(loss.natural_shift(), loss.log_prior)


def test_old_counts_fade():
    loss = LogitAdjustedLoss(dict(type='online', decay=0.5))
    step(loss, [0, 0, 0, 0])
    step(loss, [1, 2])
    assert loss.online_counts.tolist() == [2, 1, 1]
    with pytest.raises(ValueError, match='above 0 and up to 1'):
        LogitAdjustedLoss(dict(type='online', decay=1.5))


def test_what_is_computed_without_gradient_is_no_step():
    loss = LogitAdjustedLoss(dict(type='online', decay=0.5))
    with torch.no_grad():
        assert step(loss, [0, 0]).isfinite()  # of classes that are all alike
    assert loss.online_counts.tolist() == [0, 0, 0]
    step(loss, [0, 1])
    with torch.no_grad():
        step(loss, [2, 2])
    assert loss.online_counts.tolist() == [1, 1, 0]


def test_counts_survive_a_checkpoint():
    loss = LogitAdjustedLoss('online')
    step(loss, [0, 0, 1, 2])
    for other in (LogitAdjustedLoss('online'), LogitAdjustedLoss('online', num_classes=3)):
        other.load_state_dict(loss.state_dict(), strict=True)
        torch.testing.assert_close(other.log_prior, loss.log_prior)
        step(other, [1, 1])
        assert other.online_counts.tolist() == [2, 3, 1]


def test_batch_without_a_valid_pixel():
    loss = LogitAdjustedLoss('online')
    assert step(loss, [255, 255]) == 0 and loss.log_prior.isfinite().all()


def test_head_with_contrast_follows():
    head = MODELS.build(
        dict(
            type='LTMIFCNHead', in_channels=8, channels=8, num_classes=3, norm_cfg=dict(type='BN'),
            loss_decode=dict(type='LogitAdjustedLoss', class_prior='online'),
            contrast=dict(class_prior='online', sampler=dict(type='UniformPixelSampler')),
        )
    )  # fmt: skip
    sample = SegDataSample(metainfo=dict(img_shape=(8, 8)))
    sample.gt_sem_seg = PixelData(data=torch.randint(0, 3, (1, 8, 8)))
    losses = head.loss([torch.randn(1, 8, 4, 4)], [sample], None)
    assert losses['loss_contrast'].isfinite()
    torch.testing.assert_close(head.score_reader.natural_shift, head.loss_decode.log_prior)
    torch.testing.assert_close(head.contrast.log_prior, head.loss_decode.log_prior)


@pytest.mark.skipif('LTMI_CAMVID_ROOT' not in os.environ, reason='needs CamVid')
def test_it_converges_to_the_counted_prior_of_camvid():
    data = CamVidDataset(
        data_root=os.environ['LTMI_CAMVID_ROOT'],
        data_prefix=dict(img_path='img_dir/train', seg_map_path='ann_dir/train'),
        pipeline=[dict(type='mmseg.LoadAnnotations')],
    )
    loss = LogitAdjustedLoss('online')
    for i in range(len(data)):
        loss.prior.count(torch.from_numpy(data[i]['gt_seg_map']).long(), 11)
    assert loss.online_counts.tolist() == ClassPrior.load('camvid').pixel_counts.tolist()
    torch.testing.assert_close(loss.log_prior, ClassPrior.load('camvid').log_probs())


def test_class_weights_of_another_number():
    """Which only the first scores tell, where ``num_classes`` is not given."""
    loss = LogitAdjustedLoss('online', class_weight=[1, 2, 3])
    image = torch.zeros(1, 4, 2, 2), torch.zeros(1, 2, 2).long()
    message = r'LogitAdjustedLoss.class_weight has 3 entries, .* 4 classes: give one weight per'
    with pytest.raises(ValueError, match=message):
        loss(*image)
    with pytest.raises(ValueError, match=message):
        LogitAdjustedLoss('online', class_weight=[1, 2, 3], num_classes=4)
    assert LogitAdjustedLoss('online', class_weight=[1, 2, 3, 4])(*image).isfinite()
