"""Which of mmsegmentation's heads have an LTMI form, and why the others have none."""

from __future__ import annotations

from typing import Any, NoReturn

from mmseg.models import decode_heads
from mmseg.registry import MODELS

from .register_head import make_ltmi_head

SUPPORTED_HEADS = (
    'ANNHead',
    'APCHead',
    'ASPPHead',
    'CCHead',
    'DAHead',
    'DDRHead',
    'DMHead',
    'DNLHead',
    'DPTHead',
    'DepthwiseSeparableASPPHead',
    'DepthwiseSeparableFCNHead',
    'EMAHead',
    'EncHead',
    'FCNHead',
    'FPNHead',
    'GCHead',
    'ISAHead',
    'LRASPPHead',
    'LightHamHead',
    'NLHead',
    'OCRHead',
    'PIDHead',
    'PSAHead',
    'PSPHead',
    'PointHead',
    'SETRMLAHead',
    'SETRUPHead',
    'STDCHead',
    'SegformerHead',
    'UPerHead',
)
"""Heads that classify with ``cls_seg``. PointHead takes no ``contrast`` (it sees points, not a
map); PSAHead calls a compiled op and needs full mmcv."""

OWN_FORMS = (
    'IterativeDecodeHead',
    'Mask2FormerHead',
    'MaskFormerHead',
    'SegmenterMaskTransformerHead',
)
"""Heads that do not classify with ``cls_seg``, whose LTMI form has a file of its own."""

UNSUPPORTED_HEADS = {
    'SideAdapterCLIPHead': (
        'its class logits are similarities with the text embeddings of any class names, also of '
        'classes that training has never seen, of which there is no prior; use LTMIMask2FormerHead'
    ),
    'VPDDepthHead': 'it regresses depth and has no classes',
}
"""Heads without an LTMI form, with the reason and what can be used."""


def _refuse(name: str, reason: str) -> None:
    def build(*_: Any, **__: Any) -> NoReturn:
        raise TypeError(f'LTMI{name} does not exist: {reason}')

    MODELS.register_module(name=f'LTMI{name}', module=build)


for _name in SUPPORTED_HEADS:
    make_ltmi_head(getattr(decode_heads, _name), __name__)
for _name, _reason in UNSUPPORTED_HEADS.items():
    _refuse(_name, _reason)
