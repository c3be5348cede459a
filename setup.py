from pathlib import Path

from setuptools import find_packages, setup

version: dict[str, str] = {}
exec(Path('mmseg_ltmi/version.py').read_text(), version)
common = ['ftfy', 'regex']

setup(
    name='mmseg_ltmi',
    version=version['__version__'],
    description='Rare classes for mmsegmentation: class priors, logit adjustment and contrast',
    long_description=Path('README.md').read_text(),
    long_description_content_type='text/markdown',
    python_requires='>=3.10',
    packages=find_packages(include=['mmseg_ltmi*']),
    package_data={'mmseg_ltmi.priors': ['published/*.json']},
    install_requires=[
        'torch>=2.0',
        'numpy',
        'opencv-python',
        'matplotlib',
        'prettytable',
        'setuptools>=77.0.3,<82',
    ],
    extras_require={
        'lite': ['mmengine>=0.10,<0.11', 'mmcv-lite==2.1.0', 'mmsegmentation==1.2.2', *common],
        'full': ['mmengine>=0.10,<0.11', 'mmcv>=2.1,<2.2', 'mmsegmentation==1.2.2', *common],
        'onedl': ['onedl-mmengine', 'onedl-mmcv', 'onedl-mmsegmentation', *common],
        'test': ['pytest', 'hypothesis'],
        'dev': ['ruff', 'mypy', 'pre-commit'],
    },
)
