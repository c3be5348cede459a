"""A file is written as a whole or not at all."""

import pytest

from mmseg_ltmi.core.whole_file import whole_file


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    file = tmp_path / 'new/a.txt'
    with whole_file(file) as part:
        part.write_text('old')
    with pytest.raises(OSError, match='no room.*a.txt'), whole_file(file) as part:
        part.write_text('ne')
        raise OSError(28, 'no room')
    with pytest.raises(KeyboardInterrupt), whole_file(file) as part:
        part.write_text('ne')
        raise KeyboardInterrupt
    assert file.read_text() == 'old' and list(file.parent.iterdir()) == [file]


def test_a_device_is_not_replaced(tmp_path):
    pipe = tmp_path / 'folder'  # stands for whatever is no file
    pipe.mkdir()
    with whole_file(pipe) as place:
        assert place == pipe
    assert pipe.is_dir()
