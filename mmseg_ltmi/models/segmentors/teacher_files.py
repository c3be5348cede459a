"""Reads a frozen teacher from its config and checkpoint, and checks that they fit the student."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.logging import MessageHub, print_log
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import MODELS
from torch import Tensor, nn

from mmseg_ltmi.core.posterior.score_reader import folded_reading
from mmseg_ltmi.core.priors.label_space import (
    check_same_classes,
    check_same_reading,
    labels_of,
    zero_label_of,
)
from mmseg_ltmi.models.checkpoint_file import read_checkpoint, trained_labels
from mmseg_ltmi.package_configs import config_path


def read_model(config: Any) -> ConfigDict:
    """The model of a training config, less the parts that only training needs.

    Args:
        config: a file (also ``mmseg::...``, of an installed package), or a config's content.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no ``model`` in it, or a model that is no encoder-decoder.
    """
    if isinstance(config, (dict, Config)):
        cfg = Config(copy.deepcopy(dict(config)))
    elif (path := config_path(config)).is_file():
        cfg = Config.fromfile(path)
    else:
        raise FileNotFoundError(
            f'teacher.config={config} does not exist. To train, give the config that the teacher '
            'was trained with; to use a trained student without it, make model.type LTMIEncoder'
            'Decoder (LTMICascadeEncoderDecoder) and leave teacher, alpha and distill_temperature '
            'out'
        )
    model = cfg.get('model')
    if model is None or 'decode_head' not in model:
        raise ValueError(
            f'teacher.config={config} has no model with a decode_head: give a whole training '
            'config of an EncoderDecoder'
        )
    if 'data_preprocessor' in cfg:
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    kind = model.get('type')
    if isinstance(kind, str):  # a student that was taught: what it teaches needs no teacher
        model.type = kind.replace('Distilled', 'LTMI')
        for name in ('teacher', 'alpha', 'distill_temperature'):
            model.pop(name, None)
    for head in _head_configs(model):
        for term in ('contrast', 'region'):
            head.pop(term, None)
    model.pop('auxiliary_head', None)
    return model


def classifier_of(head: Any) -> nn.Conv2d:
    """The classifier of a decode head, which sees its pixel features.

    Raises:
        ValueError: there is none.
    """
    classifier = getattr(head, 'conv_seg', None)
    if not isinstance(head, BaseDecodeHead) or classifier is None:
        raise ValueError(
            f'the teacher has no cls_seg features: {type(head).__name__} does not classify pixels '
            'with a conv_seg. Take a teacher with a per-pixel head, such as UPerHead'
        )
    return classifier


def build_head(model: ConfigDict, num_classes: int) -> BaseDecodeHead:
    """The head of a teacher that classifies.

    Raises:
        ValueError: it has no ``cls_seg``, or another number of classes.
    """
    config = copy.deepcopy(_head_configs(model)[-1])
    for name in ('loss_decode', 'class_prior'):  # which may name files that only training needs
        config.pop(name, None)
    head = MODELS.build(config)
    classifier_of(head)
    if (head.num_classes, head.out_channels) != (num_classes, num_classes):
        raise ValueError(
            f"the teacher's {type(head).__name__} has num_classes={head.num_classes} and "
            f'{head.out_channels} scores, but the student has num_classes={num_classes}: they '
            'must be trained on the same classes'
        )
    return head


def load_weights(
    model: ConfigDict, checkpoint: str
) -> tuple[EncoderDecoder, dict[str, Any], Tensor | None]:
    """The network with its weights, on the CPU, and the label space of the checkpoint.

    And what its raw scores are more than the natural log-posterior (C,), where ``mmseg-ltmi
    convert`` has written it; otherwise None.

    Raises:
        FileNotFoundError: no such checkpoint.
        ValueError: a file that is no checkpoint, or weights that do not fit the model.
    """
    network = MODELS.build(copy.deepcopy(model))
    try:
        content, state = read_checkpoint(checkpoint, 'teacher.checkpoint=')
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f'{error}: train the teacher first (mmseg-ltmi train with its config), or name the '
            'file that this has written'
        ) from error
    try:
        found = network.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise ValueError(
            f'teacher.checkpoint={checkpoint} does not fit teacher.config: {error}'
        ) from error
    if found.missing_keys:
        raise ValueError(
            f'teacher.checkpoint={checkpoint} does not fit teacher.config: it lacks '
            f'{len(found.missing_keys)} tensors, such as {found.missing_keys[0]}'
        )
    parts = getattr(state, '_metadata', {})
    shift = folded_reading(parts.get('score_reader', {}), network.num_classes)
    return network, trained_labels(content), shift


def check_label_space(
    teacher: Mapping[str, Any], data_samples: list, num_classes: int, checkpoint: str
) -> None:
    """The teacher's classes are the student's, in the same order, under the same labels.

    Args:
        teacher: label space of the teacher's checkpoint; what it does not say is not compared.
        data_samples: of a batch of the student's.
        num_classes: the student's.
        checkpoint: the teacher's, for the message.

    Raises:
        ValueError: they differ.
    """
    student = MessageHub.get_current_instance().get_info('dataset_meta') or {}
    wanted, found = student.get('classes'), teacher.get('classes')
    if not found:
        print_log(f'{checkpoint} does not name its classes: they are not compared', 'current')
    who = (f'teacher.checkpoint={checkpoint}', 'the train set')
    remedy = 'train the teacher on the same classes in the same order, read from the same labels'
    # A run that is over may have left another data set behind, under another number of classes.
    if wanted and len(wanted) == num_classes:
        check_same_classes(found, wanted, who, remedy)
    # Other label maps may lead to the same classes, which have names here.
    read = zero_label_of(teacher)
    own = labels_of(data_samples[0].metainfo if data_samples else {})
    check_same_reading(read, own, who, remedy)


def _head_configs(model: ConfigDict) -> list[ConfigDict]:
    heads = model.decode_head
    return list(heads) if isinstance(heads, (list, tuple)) else [heads]
