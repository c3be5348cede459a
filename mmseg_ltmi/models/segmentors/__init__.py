"""Segmentors."""

from .decision import Decision
from .operating_point import (
    LTMICascadeEncoderDecoder,
    LTMIEncoderDecoder,
    LTMISegTTAModel,
    OperatingPointMixin,
    classifier_fingerprint,
    last_head,
)

__all__ = [
    'Decision',
    'LTMICascadeEncoderDecoder',
    'LTMIEncoderDecoder',
    'LTMISegTTAModel',
    'OperatingPointMixin',
    'classifier_fingerprint',
    'last_head',
]
