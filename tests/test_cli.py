"""The command ``mmseg-ltmi``: help without heavy imports, errors in a line, from any folder."""

import json
import logging
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from PIL import Image

from mmseg_ltmi.cli import main
from mmseg_ltmi.parsers import make_parser

ROOT = Path(__file__).parents[1]
COMMANDS = (
    'switch-on', 'train', 'test', 'count', 'memory', 'choose', 'compare', 'browse', 'explain',
    'convert', 'convert-labels', 'run',
)  # fmt: skip
HEAVY = {'torch', 'numpy', 'cv2', 'matplotlib', 'mmengine', 'mmcv', 'mmseg', 'prettytable', 'rich'}
TOOLS = {
    'train.py': 'train',
    'test.py': 'test',
    'estimate_class_prior.py': 'count',
    'choose_operating_point.py': 'choose',
    'analysis/compare_runs.py': 'compare',
    'analysis/browse_tail.py': 'browse',
    'analysis/explain_classes.py': 'explain',
    'model_converters/ltmi_to_stock.py': 'convert',
}


def python(code, cwd=ROOT, **environment):
    """Standard output of a fresh interpreter."""
    head = f'import sys; sys.path.insert(0, {str(ROOT)!r})\n'
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', head + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=cwd,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.smoke
def test_help_needs_the_standard_library_only(tmp_path):
    out = python(
        f"""
        import contextlib, io
        from mmseg_ltmi.cli import main
        for arguments in [[], *([name] for name in {COMMANDS!r})]:
            text = io.StringIO()
            with contextlib.redirect_stdout(text):
                try:
                    main([*arguments, '--help'])
                except SystemExit as end:
                    assert end.code == 0
            assert 'usage: mmseg-ltmi' in text.getvalue()
        print(sorted({HEAVY!r} & set(sys.modules)))
        """,
        tmp_path,
    )
    assert out.strip() == '[]'


@pytest.mark.smoke
def test_comparing_and_converting_masks_import_no_torch(tmp_path):
    same = dict(prior=0.5, pixels=50, Acc=60, Precision=60)
    rows = [{'class': 'a', 'group': 'head', 'IoU': 80} | same]
    rows += [{'class': 'b', 'group': 'tail', 'IoU': 40} | same]
    for run in ('ce-seed0', 'ce-seed1', 'ltmi-seed0', 'ltmi-seed1'):
        (tmp_path / run).mkdir()
        (tmp_path / run / 'per_class.json').write_text(json.dumps(rows))
    (tmp_path / 'masks').mkdir()
    Image.new('RGB', (2, 2), (255, 0, 0)).save(tmp_path / 'masks/a.png')
    (tmp_path / 'red.json').write_text('[[255, 0, 0]]')
    out = python(
        f"""
        from mmseg_ltmi.cli import main
        never = {HEAVY - {'numpy', 'matplotlib', 'rich'}!r} | {{'scipy.stats'}}
        assert main(['compare', 'none']) == 1
        assert main(['convert-labels', 'masks', 'labels', '--palette', 'red.json']) == 0
        print('needless:', *(never | {{'matplotlib', 'scipy'}}) & set(sys.modules))
        assert main(['compare', 'ce-seed0', 'ce-seed1', 'ltmi-seed0', 'ltmi-seed1']) == 0
        print('needless:', *never & set(sys.modules))
        """,
        tmp_path,
    )
    assert [line for line in out.splitlines() if 'needless' in line] == ['needless:'] * 2
    assert '| ltmi | 2 | 60.00 ± 0.00 | 80.00 ± 0.00 | - | 40.00 ± 0.00 | 60.00 ± 0.00 |' in out
    assert (tmp_path / 'work_dirs/comparison/difference.png').is_file()


def test_every_command_has_a_line_of_help(capsys):
    with pytest.raises(SystemExit):
        main(['--help'])
    text = capsys.readouterr().out
    parser = make_parser()
    commands = next(a for a in parser._actions if a.dest == 'command')
    assert tuple(commands.choices) == COMMANDS
    for action in commands._choices_actions:
        assert action.help.split()[0] in text and '\n' not in action.help
    # Every option says what it is for, and what it is where it is not given.
    for name, command in commands.choices.items():
        for action in command._actions:
            if action.help == '==SUPPRESS==' or not action.option_strings:
                continue
            assert action.help, f'{name} {action.option_strings}'
            if action.default not in (None, False, '==SUPPRESS=='):
                assert 'default: ' in action.help, f'{name} {action.option_strings}'


@pytest.mark.parametrize('tool', TOOLS)
def test_tools_are_the_commands(tool, monkeypatch):
    import runpy

    called = []
    monkeypatch.setattr('mmseg_ltmi.cli.main', lambda arguments: called.append(arguments) or 0)
    monkeypatch.setattr(sys, 'argv', [tool, 'a', '--b'])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / 'tools' / tool), run_name='__main__')
    assert end.value.code == 0 and called == [[TOOLS[tool], 'a', '--b']]


@pytest.mark.parametrize(
    'arguments, reason',
    [
        (['train', 'none.py'], 'none.py'),
        (['test', 'none.json', 'none.pth'], 'none.json'),
        (['test', 'mmseg_ltmi::none.py', 'none.pth'], 'none.py'),
        (['count', 'no_package::none.py', '--out', 'a.json'], 'there is no package no_package'),
        (['count', '.gitignore', '--out', 'a.json'], 'py/yml/yaml/json'),
        (['count', 'imports.py', '--out', 'a.json'], "imported: No module named 'no_module'"),
        (['switch-on', 'none.py'], 'no config none.py'),
        (['choose', 'none.py', 'none.pth'], 'there is no checkpoint none.pth'),
        (['explain', 'none.py', 'none.pth'], 'there is no checkpoint none.pth'),
        (['browse', 'none.py', 'none.pth'], 'there is no checkpoint none.pth'),
        (['browse', 'none.py', 'a', 'b', 'c'], 'one or two checkpoints'),
        (['compare', 'none'], 'there is no run none'),
        (['convert', 'none.pth', 'out.pth'], 'none.pth does not exist'),
        (['convert-labels', 'none', 'out', '--palette', 'ade'], 'none is no folder'),
        (['count', 'no_data.py', '--out', 'a.json'], "no_data/img'. If the data is elsewhere"),
    ],
)
def test_errors_are_a_line(arguments, reason, tmp_path, monkeypatch, capsys):
    (tmp_path / '.gitignore').touch()
    (tmp_path / 'imports.py').write_text("custom_imports = dict(imports=['no_module'])")
    data = dict(type='mmseg.BaseSegDataset', data_prefix=dict(img_path='no_data/img'))
    (tmp_path / 'no_data.py').write_text(f'train_dataloader = dict(dataset={data})')
    monkeypatch.chdir(tmp_path)
    # mmengine's logger may still write to what an earlier test has closed.
    monkeypatch.setattr(logging, 'raiseExceptions', False)
    assert main(arguments) == 1
    shown = capsys.readouterr().err.strip().splitlines()
    assert len(shown) == 1 and reason in shown[0]
    assert shown[0].startswith(f'mmseg-ltmi {arguments[0]}: ')


@pytest.mark.parametrize(
    'arguments, reason',
    [
        ([], 'COMMAND'),
        (['tain'], 'invalid choice'),
        (['train', 'a.py', '--cfg-options', 'lr'], "'lr' is not KEY=VALUE"),
        (['train', 'a.py', '--work', 'x'], 'unrecognized'),
        (['choose', 'a.py', 'a.pth', '--folds', '-1'], 'takes a whole number'),
        (['choose', 'a.py', 'a.pth', '--max-values', '0'], 'takes 1 or more'),
        (['compare', 'a', '--seed-pattern', '('], '--seed-pattern'),
    ],
)
def test_arguments_that_cannot_be_meant(arguments, reason, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2 and reason in capsys.readouterr().err


@pytest.mark.parametrize(
    'text, value',
    [
        ('3', 3),
        ('[1,2]', [1, 2]),
        ('1,2', [1, 2]),
        ('[(1, 2), (3, 4)]', [(1, 2), (3, 4)]),
        ('"[a,b]"', ['a', 'b']),
        ('my folder/data', 'my folder/data'),
        ("'my data, v2'", 'my data, v2'),
        ('here, too', 'here, too'),  # since it is there
        ('a=b', 'a=b'),
        ("['d e', 'f,g']", ['d e', 'f,g']),
        ("['d',e]", ['d', 'e']),
    ],
)
def test_values_with_spaces_and_commas(text, value, tmp_path, monkeypatch):
    from mmseg_ltmi.apis.commands import _options_of

    monkeypatch.chdir(tmp_path)
    (tmp_path / 'here, too').mkdir()
    args = make_parser().parse_args(['train', 'a.py', '--cfg-options', f'a.b={text}', 'c=1'])
    assert _options_of(args) == {'a.b': value, 'c': 1}


def test_a_mistake_in_the_program_keeps_its_traceback(monkeypatch):
    def broken(args):
        return int('x')  # a ValueError, from this file

    monkeypatch.setattr('mmseg_ltmi.apis.commands.compare', broken)
    with pytest.raises(ValueError, match='invalid literal'):
        main(['compare', 'a'])


def test_an_operators_error_in_our_code_keeps_its_traceback(monkeypatch, capsys):
    """C code has no frame, so the innermost one is this package's, as of a message for users."""
    import torch

    from mmseg_ltmi.apis.empty_split import naming_empty_split
    from mmseg_ltmi.core.pixel_maps import class_means

    def broken(args):
        class_means(torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 2).long(), 4)

    def meant(args):
        with naming_empty_split('test', {}) as check_length:
            check_length([])

    monkeypatch.setattr('mmseg_ltmi.apis.commands.compare', broken)
    with pytest.raises(RuntimeError, match='size'):
        main(['compare', 'a'])
    monkeypatch.setattr('mmseg_ltmi.apis.commands.compare', meant)
    assert main(['compare', 'a']) == 1
    assert capsys.readouterr().err.startswith('mmseg-ltmi compare: the test split has no images')


def test_ctrl_c_is_no_traceback(monkeypatch, capsys):
    def stopped(args):
        raise KeyboardInterrupt

    monkeypatch.setattr('mmseg_ltmi.apis.commands.compare', stopped)
    assert main(['compare', 'a']) == 130
    assert capsys.readouterr().err.strip() == 'mmseg-ltmi compare: stopped'


@pytest.mark.skipif(os.name == 'nt', reason='Windows has no such pipe')
def test_a_reader_that_has_ended_is_no_traceback(tmp_path):
    """As head: what was computed is written all the same."""
    config = 'mmseg_ltmi::demo/ce_fcn-r18_400_shapes-128x128.py'
    if not (ROOT / 'mmseg_ltmi/.mim/configs').is_dir():
        config = str(ROOT / 'configs/demo/ce_fcn-r18_400_shapes-128x128.py')
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-m', 'mmseg_ltmi', 'count', config, '--out', 'p.json',
         '--workers', '0', '--cfg-options', 'train_dataloader.dataset.num_images=3',
         'train_dataloader.dataset.size=(32,32)'],
        cwd=tmp_path, stdout=write, stderr=subprocess.PIPE, text=True,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
    )  # fmt: skip
    os.close(write)
    assert done.returncode == 1 and 'ipe' not in done.stderr, done.stderr
    assert (tmp_path / 'p.json').is_file() and (tmp_path / 'p.png').is_file()


def test_a_pipe_of_another_kind_that_breaks_is_told(monkeypatch, capsys):
    def broken(args):
        raise BrokenPipeError(32, 'Broken pipe')  # from this file, as from a worker process

    monkeypatch.setattr('mmseg_ltmi.apis.commands.compare', broken)
    assert main(['compare', 'a']) == 1
    assert 'Broken pipe' in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_no_missing_data(tmp_path, monkeypatch, capsys):
    def no_folder(path, *args, **kwargs):
        kind = FileExistsError if os.path.exists(path) else FileNotFoundError  # as below /proc
        raise kind(2, 'No such file or directory', str(path))

    (tmp_path / 'a.py').write_text('')
    monkeypatch.setattr(os, 'mkdir', no_folder)
    assert main(['count', str(tmp_path / 'a.py'), '--out', str(tmp_path / 'no/a.json')]) == 1
    shown = capsys.readouterr().err
    assert str(tmp_path / 'no') in shown and 'data_root' not in shown


def test_nothing_is_overwritten(tmp_path, capsys):
    """Before anything is computed: neither the config nor the checkpoint is there."""
    (tmp_path / 'operating_point').mkdir()
    checkpoint = str(tmp_path / 'a.pth')
    for file in ('operating_point/curves.png', 'a.json', 'a.png', 'b.pth'):
        (tmp_path / file).touch()
    for arguments in (
        ['choose', 'none.py', checkpoint],
        ['choose', 'none.py', 'a.pth', '--work-dir', str(tmp_path)],
        ['choose', 'none.py', 'a.pth', '--embed', str(tmp_path / 'b.pth')],
        ['explain', 'none.py', checkpoint, '--json', str(tmp_path / 'a.json')],
        ['browse', 'none.py', checkpoint, '--out', str(tmp_path / 'a.png')],
        ['count', 'none.py', '--out', str(tmp_path / 'a.json')],
    ):
        assert main(arguments) == 1
        assert 'exists: name another place or give --force' in capsys.readouterr().err
        assert main([*arguments, '--force']) == 1
        assert 'exists' not in capsys.readouterr().err


@pytest.mark.parametrize(
    'arguments',
    [
        ['choose', 'none.py', 'a.pth', '--out', 'file/point'],
        ['choose', 'none.py', 'a.pth', '--embed', 'file/b.pth'],
        ['memory', 'none.py', 'a.pth', '--out', 'file/b.pth'],
        ['memory', 'none.py', 'a.pth', '--out', 'folder', '--force'],
        ['explain', 'none.py', 'a.pth', '--json', 'file/a.json'],
        ['explain', 'none.py', 'a.pth', '--memory', 'm.pth', '--page', 'file/a.png'],
        ['browse', 'none.py', 'a.pth', '--out', 'file/a.png'],
        ['test', 'none.py', 'a.pth', '--per-class', 'file/a.json'],
        ['count', 'none.py', '--out', 'file/a.json'],
        ['count', 'none.py', '--out', 'a.json', '--plot', 'file/a.png'],
    ],
)
def test_what_cannot_be_written_is_said_before_the_work(arguments, tmp_path, monkeypatch, capsys):
    """Not even the config is read."""
    monkeypatch.chdir(tmp_path)
    for name in ('file', 'a.pth'):
        (tmp_path / name).touch()
    (tmp_path / 'folder').mkdir()
    assert main(arguments) == 1
    shown = capsys.readouterr().err
    place = 'folder' if 'folder' in arguments else 'file'
    assert f'{arguments[0]}: {place}' in shown and 'cannot be written (' in shown
    assert not list((tmp_path / 'folder').iterdir())


@pytest.mark.parametrize(
    'arguments, reason',
    [
        (['convert', 'a.pth', 'a.pth'], 'a.pth is what is read'),
        (['choose', 'none.py', 'a.pth', '--embed', './a.pth'], 'a.pth is what is read'),
        (['choose', 'none.py', 'a.pth', '--memory', 'm.pth', '--embed', 'm.pth'], 'is what is'),
        (['memory', 'none.py', 'a.pth', '--out', 'a.pth'], 'a.pth is what is read'),
        (['explain', 'none.py', 'a.pth', '--json', 'fig.txt'], 'fig.txt: the figures are JSON'),
        (['explain', 'none.py', 'a.pth', '--memory', 'm.pth', '--page', 'a.doc'], 'drawn as .doc'),
        (['browse', 'none.py', 'a.pth', '--out', 'a.doc'], 'drawn as .doc. Let the name end in'),
        (['count', 'none.py', '--out', 'a.json', '--plot', 'a.doc'], 'cannot be drawn as .doc'),
        (['choose', 'none.py', 'https://x.org/a.pth'], 'name a place with --out'),
        (['memory', 'none.py', 'https://x.org/a.pth'], 'https://x.org/a.pth is an address'),
        (['browse', 'none.py', 'https://x.org/a.pth'], 'https://x.org/a.pth is an address'),
        (['browse', 'none.py', 'https://x.org/a.pth', '--out', 'a.png'], "'none.py'"),
        (['browse', 'none.py', 'a.pth', '--other-config', 'b.py'], 'leave --other-config out'),
    ],
)
def test_outputs_that_cannot_be_meant(arguments, reason, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ('a.pth', 'm.pth'):
        (tmp_path / name).write_text('precious')
    assert main([*arguments, '--force']) == 1
    assert reason in capsys.readouterr().err
    assert {file.name for file in tmp_path.iterdir()} == {'a.pth', 'm.pth'}
    assert (tmp_path / 'a.pth').read_text() == (tmp_path / 'm.pth').read_text() == 'precious'


@pytest.mark.parametrize('command', ['train a.py', 'compare a', 'convert a.pth b.pth'])
def test_without_openmmlab_it_says_what_installs_it(command, tmp_path):
    out = python(
        f"""
        for name in ('mmengine', 'mmcv', 'mmseg'):
            sys.modules[name] = None  # not to be found
        from mmseg_ltmi.cli import main
        sys.stderr = sys.stdout
        print(main({command.split()!r}))
        """,
        tmp_path,
    )
    line, status = out.strip().splitlines()
    assert "pip install 'mmseg_ltmi[lite]'" in line and status == '1'


def test_run_gives_scripts_what_mmcv_lite_lacks(tmp_path):
    """Those that import mmsegmentation and not this package, such as its own tools."""
    (tmp_path / 'beside.py').write_text('found = 7', 'utf-8')
    (tmp_path / 'script.py').write_text(
        'import sys\n'
        'from mmseg.apis import init_model\n'
        'from mmseg.registry import MODELS\n'
        'import beside\n'
        "print(__name__, sys.argv[1:], beside.found, MODELS.get('LTMIUPerHead').__name__)\n"
    )
    for start in ('mmseg_ltmi', 'mmseg_ltmi.cli'):
        done = subprocess.run(
            [sys.executable, '-m', start, 'run', str(tmp_path / 'script.py'), 'a', '--force'],
            capture_output=True, text=True, env={**os.environ, 'PYTHONPATH': str(ROOT)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == "__main__ ['a', '--force'] 7 LTMIUPerHead"


def test_a_config_of_the_package_from_any_folder(tmp_path):
    """No clone: what is imported is found by itself, and the configs lie in the package."""
    if not (ROOT / 'mmseg_ltmi/.mim/configs').is_dir():
        pytest.skip('the package is not installed, so its configs are not in it')
    config = 'mmseg_ltmi::demo/ce_fcn-r18_400_shapes-128x128.py'
    options = ['train_dataloader.dataset.num_images=3', 'train_dataloader.dataset.size=(32,32)']
    done = subprocess.run(
        [sys.executable, '-m', 'mmseg_ltmi.cli', 'count', config, '--out', 'p.json',
         '--workers', '0', '--cfg-options', options[0], '--cfg-options', options[1]],
        cwd=tmp_path, capture_output=True, text=True, env={**os.environ, 'PYTHONPATH': str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert '3 images' in done.stdout and (tmp_path / 'p.json').is_file()
