"""Class names as texts that can be shown and told apart."""

from mmseg_ltmi.core.class_names import distinct_names, one_line, shortened


def test_distinct_names():
    assert distinct_names(['road', 'traffic sign']) == ['road', 'traffic sign']
    assert distinct_names(['car', 'car', 'car', 'car-2']) == ['car', 'car-3', 'car-4', 'car-2']
    assert distinct_names([0, None, '', ' \t']) == ['0', 'None', '2', '3']
    assert distinct_names(['a\nb', 'a b', 'a\x1b[31mb']) == ['a b', 'a b-2', 'a [31mb']
    assert one_line(' дом\r\n家 ') == 'дом 家'


def test_shortened():
    assert shortened('road', 4) == 'road'
    text = shortened('a' * 50 + 'b' * 50, 20)
    assert len(text) == 20 and text.startswith('aaa') and text.endswith('bbb') and '…' in text
