"""Segmentors."""

from .decision import Decision
from .distilled import DistilledCascadeEncoderDecoder, DistilledEncoderDecoder, TeacherMixin
from .operating_point import (
    LTMICascadeEncoderDecoder,
    LTMIEncoderDecoder,
    LTMISegTTAModel,
    OperatingPointMixin,
    classifier_fingerprint,
    heads_of,
    last_head,
)
from .teacher import EMATeacher, FrozenTeacher

__all__ = [
    'Decision',
    'DistilledCascadeEncoderDecoder',
    'DistilledEncoderDecoder',
    'EMATeacher',
    'FrozenTeacher',
    'LTMICascadeEncoderDecoder',
    'LTMIEncoderDecoder',
    'LTMISegTTAModel',
    'OperatingPointMixin',
    'TeacherMixin',
    'classifier_fingerprint',
    'heads_of',
    'last_head',
]
