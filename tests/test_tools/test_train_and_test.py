"""Training and testing by the command line, and how its options change a config."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmseg.evaluation import IoUMetric
from mmseg.models import SegTTAModel
from mmseg.models.decode_heads import FCNHead, OCRHead
from mmseg.models.segmentors import CascadeEncoderDecoder, EncoderDecoder
from mmseg.registry import MODELS

from mmseg_ltmi.apis import runs
from mmseg_ltmi.apis.config_changes import (
    read_config,
    set_cpu_processes,
    set_mixed_precision,
    set_per_class_file,
    set_prediction_folder,
    set_reading,
    set_test_time_augmentation,
    set_visualization,
    set_work_dir,
    with_operating_point,
)
from mmseg_ltmi.cli import main
from mmseg_ltmi.evaluation import LogitAdjustmentSweep, LongTailIoUMetric

ROOT = Path(__file__).parents[2]
# torchrun lies beside the interpreter.
ENV = {**os.environ, 'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}'}
with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    ENV['PORT'] = str(free.getsockname()[1])
CONFIG = ROOT / 'configs/demo/ltmi_fcn-r18_400_shapes-128x128.py'


def run(command, cwd):
    done = subprocess.run(
        [str(c) for c in command], cwd=cwd, capture_output=True, text=True, timeout=500, env=ENV
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def newest_log(folder):
    return max(folder.glob('*/*.log'), key=lambda file: file.stat().st_mtime).read_text()


@pytest.fixture(scope='module')
def options():
    out = ['train_cfg.max_iters=4', 'default_hooks.logger.interval=1', 'log_level=INFO']
    for split, number in (('train', 300), ('test', 6)):
        out += [
            f'{split}_dataloader.dataset.num_images={number}',
            f'{split}_dataloader.dataset.size=(64,64)',
            f'{split}_dataloader.batch_size=2',
        ]
    return out + ['default_hooks.checkpoint.interval=2']


def cascade(**changes):
    return Config(
        dict(
            model=dict(
                type='CascadeEncoderDecoder',
                decode_head=[dict(type='FCNHead'), dict(type='LTMIOCRHead')],
            ),
            tta_model=dict(type='SegTTAModel'),
            test_evaluator=[dict(type='LogitAdjustmentSweep'), dict(type='IoUMetric')],
            **changes,
        )
    )


def test_the_last_head_and_the_metric_are_found():
    labelled = dict(dataset=dict(pipeline=[dict(type='LoadAnnotations')]))
    cfg = cascade(test_dataloader=labelled)
    set_reading(cfg, 0.5)
    set_per_class_file(cfg, '/a/rows.csv')
    set_prediction_folder(cfg, '/a/out')
    # mmsegmentation's own become those that read an operating point, which a checkpoint may hold.
    assert cfg.model.type == 'mmseg.LTMICascadeEncoderDecoder'
    assert cfg.tta_model.type == 'mmseg.LTMISegTTAModel'
    assert [head.get('tau_test') for head in cfg.model.decode_head] == [None, 0.5]
    sweep, metric = cfg.test_evaluator
    assert dict(sweep) == dict(type='LogitAdjustmentSweep')
    assert metric.type == 'mmseg.LongTailIoUMetric' and metric.per_class_file == '/a/rows.csv'
    assert metric.output_dir == '/a/out'

    set_reading(cfg, operating_point='point.json')
    assert cfg.model.operating_point == str(Path('point.json').resolve())
    cfg.model.decode_head = dict(type='FCNHead')
    cfg.test_evaluator = dict(type='LogitAdjustmentSweep')
    with pytest.raises(ValueError, match='LTMIFCNHead'):
        set_reading(cfg, 0.5)
    with pytest.raises(ValueError, match='LogitAdjustmentSweep'):
        set_per_class_file(cfg, 'rows.csv')
    for metrics in ([], cfg.test_evaluator):  # a sweep writes none
        with pytest.raises(ValueError, match='needs a metric that writes the label maps: put dict'):
            set_prediction_folder(Config(dict(model=cfg.model, test_evaluator=metrics)), 'out')


FORMS = lambda t: t.__name__, lambda t: f'mmseg.{t.__name__}', lambda t: t


@pytest.mark.parametrize('form', FORMS, ids=['name', 'scoped', 'class'])
def test_types_are_names_scoped_names_or_classes(form):
    head = MODELS.get('LTMIFCNHead')
    cfg = Config(
        dict(
            model=dict(type=form(EncoderDecoder), decode_head=dict(type=form(head))),
            tta_model=dict(type=form(SegTTAModel)),
            test_evaluator=dict(type=form(IoUMetric)),
        )
    )
    assert with_operating_point(cfg.model).type == 'mmseg.LTMIEncoderDecoder'
    set_reading(cfg, 1.0, 'point.json')
    set_per_class_file(cfg, 'rows.json')
    assert cfg.model.type == 'mmseg.LTMIEncoderDecoder' and cfg.model.decode_head.tau_test == 1
    assert cfg.tta_model.type == 'mmseg.LTMISegTTAModel'
    assert cfg.test_evaluator.type == 'mmseg.LongTailIoUMetric'

    # What reads an operating point already stays, and so does what is derived from it.
    class Own(MODELS.get('LTMICascadeEncoderDecoder')):
        pass

    class OwnMetric(LongTailIoUMetric):
        pass

    cfg = Config(
        dict(
            model=dict(type=Own, decode_head=[dict(type=form(FCNHead)), dict(type=form(OCRHead))]),
            test_evaluator=[dict(type=form(LogitAdjustmentSweep)), dict(type=OwnMetric)],
        )
    )
    set_reading(cfg, operating_point='point.json')
    set_per_class_file(cfg, 'rows.json')
    assert cfg.model.type is Own and cfg.test_evaluator[1].type is OwnMetric
    assert 'per_class_file' in cfg.test_evaluator[1]
    with pytest.raises(ValueError, match='the config has OCRHead.*LTMIOCRHead'):
        set_reading(cfg, 1.0)


def test_a_segmentor_without_operating_point():
    class Plain(EncoderDecoder):
        pass

    cfg = Config(dict(model=dict(type=Plain, decode_head=dict(type='FCNHead'))))
    set_reading(cfg)
    assert cfg.model.type is Plain
    with pytest.raises(ValueError, match='Plain takes no operating point'):
        set_reading(cfg, operating_point='point.json')
    cfg = Config(dict(model=dict(type=CascadeEncoderDecoder)))
    with pytest.raises(ValueError, match='no decode_head'):
        set_reading(cfg, 1.0)


def test_configs_of_every_format(tmp_path):
    whole = Config.fromfile(CONFIG)
    for suffix in ('py', 'json', 'yaml'):
        file = tmp_path / f'a.{suffix}'
        whole.dump(file)
        cfg = read_config(file, {'train_cfg.max_iters': 7})
        assert cfg.train_cfg.max_iters == 7 and cfg.model.decode_head.type == 'LTMIFCNHead'
        cfg.pop('work_dir', None)
        set_work_dir(cfg, None)
        assert cfg.work_dir == 'work_dirs/a'
    same = read_config(whole, {'work_dir': 'here'})
    set_work_dir(same, None)
    assert same.work_dir == 'here' and 'work_dir' not in whole
    set_work_dir(same, tmp_path)
    assert same.work_dir == str(tmp_path)


def test_mixed_precision():
    for kind in ('OptimWrapper', 'mmengine.OptimWrapper', OptimWrapper, AmpOptimWrapper):
        cfg = Config(dict(optim_wrapper=dict(type=kind, optimizer=dict(type='SGD'))))
        set_mixed_precision(cfg)
        assert cfg.optim_wrapper.type in ('mmengine.AmpOptimWrapper', AmpOptimWrapper)
        assert cfg.optim_wrapper.optimizer.type == 'SGD'
    with pytest.raises(ValueError, match='the config has OptimWrapperDict'):
        set_mixed_precision(Config(dict(optim_wrapper=dict(type='OptimWrapperDict'))))


def test_views_of_wrapped_data_sets():
    parts = [dict(type='A', pipeline=[]), dict(type='RepeatDataset', dataset=dict(type='B'))]
    cfg = cascade(
        tta_pipeline=[dict(type='TestTimeAug')],
        test_dataloader=dict(dataset=dict(type='ConcatDataset', datasets=parts)),
    )
    set_test_time_augmentation(cfg)
    first, second = cfg.test_dataloader.dataset.datasets
    assert first.pipeline == second.dataset.pipeline == [dict(type='TestTimeAug')]
    assert cfg.model.type == 'SegTTAModel' and len(cfg.model.module.decode_head) == 2
    with pytest.raises(ValueError, match='--tta needs tta_pipeline in the config'):
        set_test_time_augmentation(cascade())


def test_visualization():
    cfg = Config(dict(default_hooks=dict(visualization=dict(type='x', interval=5))))
    set_visualization(cfg, show_dir='here')
    assert cfg.default_hooks.visualization == dict(type='x', interval=5, draw=True)
    assert cfg.visualizer.save_dir == 'here' and len(cfg.visualizer.vis_backends) == 1
    cfg = Config(dict(visualizer=dict(type='SegLocalVisualizer', vis_backends=[])))
    set_visualization(cfg, show=True, wait_time=3)
    hook = cfg.default_hooks.visualization
    assert (hook.draw, hook.show, hook.wait_time, hook.interval) == (True, True, 3, 1)
    assert 'save_dir' not in cfg.visualizer


def test_processes_without_a_gpu_keep_what_the_config_says():
    cfg = Config(dict(find_unused_parameters=True))
    set_cpu_processes(cfg)
    assert cfg.runner_type == 'mmengine.CPURunner'
    assert cfg.model_wrapper_cfg == dict(
        type='mmengine.MMDistributedDataParallel', broadcast_buffers=False, device_ids=None,
        find_unused_parameters=True,
    )  # fmt: skip
    cfg = Config(dict(runner_type='Own', model_wrapper_cfg=dict(broadcast_buffers=True)))
    set_cpu_processes(cfg)
    assert cfg.runner_type == 'Own' and cfg.model_wrapper_cfg.broadcast_buffers


@pytest.mark.smoke
def test_train_resume_and_test(tmp_path, options, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where the demo draws its images
    # This project's tools need no custom_imports.
    config = tmp_path / 'config.py'
    config.write_text(f"_base_ = '{CONFIG}'\ncustom_imports = dict(_delete_=True, imports=[])\n")
    train = [sys.executable, ROOT / 'tools/train.py', config, '--work-dir', tmp_path / 'run']
    log = run([*train, '--cfg-options', *options], tmp_path)
    assert 'decode.loss_contrast' in log and 'decode.contrast_temperature' in log
    assert (tmp_path / 'run/class_prior.json').is_file()

    state = torch.load(tmp_path / 'run/iter_4.pth')['state_dict']
    held = (state['decode_head.contrast.queue.labels'] >= 0).float().mean()
    more = [o.replace('max_iters=4', 'max_iters=6') for o in options]
    train = ['train', str(config), '--work-dir', str(tmp_path / 'run')]
    assert main([*train, '--resume', '--cfg-options', *more]) == 0
    log = newest_log(tmp_path / 'run')
    assert 'resumed epoch: 0, iter: 4' in log and 'Iter(train) [6/6]' in log
    fill = re.search(r'Iter\(train\) \[5/6\].*queue_fill: ([\d.]+)', log)
    assert held > 0 and float(fill[1]) >= held - 1e-4

    Config.fromfile(CONFIG).dump(tmp_path / 'flat.json')
    rows, test = tmp_path / 'rows.csv', ['test', str(tmp_path / 'flat.json')]
    test += [str(tmp_path / 'run/iter_6.pth'), '--work-dir', str(tmp_path / 'test')]
    test += ['--per-class', str(rows), '--out', str(tmp_path / 'maps')]
    assert main([*test, '--tau-test', '1', '--cfg-options', *options]) == 0
    log = newest_log(tmp_path / 'test')
    assert 'mIoU_head' in log and len(rows.read_text().splitlines()) == 14
    assert 'tau_test=1.0' in log and len(list((tmp_path / 'maps').glob('*.png'))) == 6

    no_labels = read_config(CONFIG)
    no_labels.test_dataloader.dataset.pipeline = [
        dict(type='LoadImageFromFile'), dict(type='PackSegInputs')
    ]  # fmt: skip
    with pytest.raises(ValueError, match='the test split has no labels to compare with'):
        runs.test(no_labels, tmp_path / 'run/iter_6.pth', tmp_path / 'test')


def test_two_processes(tmp_path, options):
    options = ['--work-dir', tmp_path / 'run', '--cfg-options', *options]
    log = run(['bash', ROOT / 'tools/dist_train.sh', CONFIG, 2, *options], tmp_path)
    assert 'Iter(train) [4/4]' in log
    checkpoint = tmp_path / 'run/iter_4.pth'
    log = run(['bash', ROOT / 'tools/dist_test.sh', CONFIG, checkpoint, 2, *options], tmp_path)
    assert 'mIoU_head' in log


def test_own_tools_of_mmsegmentation(tmp_path, options):
    import mmseg

    tool = Path(mmseg.__file__).parent / '.mim/tools/train.py'
    if not tool.is_file():
        pytest.skip('mmsegmentation was installed without its tools')
    config = CONFIG
    if MODULE2PACKAGE['mmseg'] != 'mmsegmentation':
        # The fork's tools look for the distribution of mmseg:: bases under another name.
        config = tmp_path / 'flat.py'
        Config.fromfile(CONFIG).dump(config)
    command = [sys.executable, tool, config, '--work-dir', tmp_path / 'run', '--cfg-options']
    assert 'Iter(train) [4/4]' in run([*command, *options], tmp_path)
