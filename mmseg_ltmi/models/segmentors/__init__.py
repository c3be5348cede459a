"""Segmentors."""

from .distilled_segmentors import (
    DistilledCascadeEncoderDecoder,
    DistilledEncoderDecoder,
    TeacherMixin,
)
from .ltmi_segmentors import (
    LTMICascadeEncoderDecoder,
    LTMIEncoderDecoder,
    LTMISegTTAModel,
    ScoreReadingMixin,
    check_memory,
    check_memory_weights,
    classifier_fingerprint,
    heads_of,
    last_head,
    reader_prefix,
)
from .read_scores import ReadScores
from .teacher import EMATeacher, FrozenTeacher, Teacher

__all__ = [
    'DistilledCascadeEncoderDecoder',
    'DistilledEncoderDecoder',
    'EMATeacher',
    'FrozenTeacher',
    'LTMICascadeEncoderDecoder',
    'LTMIEncoderDecoder',
    'LTMISegTTAModel',
    'ReadScores',
    'ScoreReadingMixin',
    'Teacher',
    'TeacherMixin',
    'check_memory',
    'check_memory_weights',
    'classifier_fingerprint',
    'heads_of',
    'last_head',
    'reader_prefix',
]
