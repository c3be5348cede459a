"""Segmentors."""

from .distilled_segmentors import (
    DistilledCascadeEncoderDecoder,
    DistilledEncoderDecoder,
    TeacherMixin,
)
from .fingerprint import check_memory, check_memory_weights, network_fingerprint
from .heads import heads_of, last_head
from .ltmi_segmentors import (
    LTMICascadeEncoderDecoder,
    LTMIEncoderDecoder,
    ScoreReadingMixin,
    reader_prefix,
)
from .read_scores import ReadScores
from .teacher import EMATeacher, FrozenTeacher, Teacher
from .tta_model import LTMISegTTAModel

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
    'heads_of',
    'last_head',
    'network_fingerprint',
    'reader_prefix',
]
