"""One training run of a study, and what its folder says of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

from mmseg_ltmi.json_file import read_json, write_json

BEGUN = 'begun.json'
"""In a run's folder: when it was begun, and when those that it needs were."""
FINISHED = 'finished.json'
"""In a trained run's folder: the arguments it was judged by, or null."""
CHECKPOINT = 'last_checkpoint'
"""In a run's folder, by mmengine: where its last checkpoint was written."""


class Run(NamedTuple):
    """One training run.

    Attributes:
        row: name of the row.
        seed: of the run.
        folder: OUT/runs/ROW-seedN.
        file: where its config is, once it is begun.
        config: all of it.
        needs: runs that must be finished before it begins.
    """

    row: str
    seed: int
    folder: Path
    file: Path
    config: Config
    needs: tuple[Run, ...] = ()

    @property
    def name(self) -> str:
        """ROW-seedN."""
        return self.folder.name

    @property
    def is_trained(self) -> bool:
        """Whether its training ended well."""
        return (self.folder / FINISHED).exists()

    @property
    def point(self) -> Path:
        """The folder of its operating points, a file of rows per class for each among them."""
        return self.folder / 'operating_point'

    def is_finished(self, judge: list[str]) -> bool:
        """Whether it is trained, and judged by these arguments."""
        return self._record(FINISHED) == dict(judge=list(judge)) and holds_points(self.point)

    def mark(self, judge: list[str] | None) -> None:
        """Keep that it is trained, and the arguments that it is judged by."""
        write_json(self.folder / FINISHED, dict(judge=judge))

    def checkpoint(self) -> Path | None:
        """The last one, also where the folder was moved since."""
        file = self.folder / CHECKPOINT
        if not file.exists():
            return None
        said = Path(file.read_text().strip())
        return next((path for path in (self.folder / said.name, said) if path.is_file()), None)

    def begin(self) -> None:
        """Write its config and what it is begun with, if they are not there.

        Raises:
            ValueError: a config that a file cannot hold.
        """
        if not self.file.exists():
            self.file.parent.mkdir(parents=True, exist_ok=True)
            unfinished = self.file.with_suffix('.tmp.py')
            self.config.dump(unfinished)
            try:
                changed = difference(self.config.to_dict(), read_config(unfinished).to_dict())
            except ValueError as error:  # of inf for instance
                changed = str(error)
            if changed:
                raise ValueError(
                    f'{unfinished} does not hold what the study says ({changed}): a config takes '
                    'finite numbers, texts, lists and dicts'
                )
            unfinished.replace(self.file)
        if not any((self.folder / name).exists() for name in (BEGUN, FINISHED)):
            needs = {run.name: run.begun for run in self.needs}
            write_json(self.folder / BEGUN, dict(time=datetime.now().isoformat(), needs=needs))

    @property
    def begun(self) -> str | None:
        """When it was begun; None if that is not known."""
        return self._record(BEGUN).get('time')

    def outdated(self) -> str:
        """In what it is not the run that the study has now; '' if it is, or is not begun."""
        is_begun = any((self.folder / name).exists() for name in (BEGUN, CHECKPOINT, FINISHED))
        if self.file.exists():
            try:
                written = read_config(self.file).to_dict()
            except ValueError as error:
                return f'has a config that cannot be read, {error}'
            changed = difference(written, self.config.to_dict())
            if changed:
                return f'was begun with another config, {changed}'
        elif is_begun:
            return 'has lost the config that it was begun with'
        if not is_begun:
            return ''
        record = self._record(BEGUN)
        if not record and any(run.begun for run in self.needs):
            return f'has lost {self.folder / BEGUN}, which says what it was begun with'
        then = record.get('needs', {})
        for run in self.needs:
            # The others are seeds that its row did not have then.
            if run.name in then and then[run.name] != run.begun:
                return f'was begun with an earlier {run.name}'
            reason = run.outdated()
            if reason:
                return f'needs {run.name}, which {reason}'
        return ''

    def _record(self, name: str) -> dict:
        """A file of its folder; {} if it is not there or damaged, and then it is found out anew."""
        try:
            found = read_json(self.folder / name, '')
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def holds_points(folder: Path) -> bool:
    """Whether tools/choose_operating_point.py has written all its points there."""
    return all(any(folder.glob(name)) for name in ('operating_point.json', 'per_class/*.json'))


def read_config(file: Path) -> Config:
    """A config.

    Raises:
        FileNotFoundError: no such file.
        ValueError: what is in it is none.
    """
    try:
        return Config.fromfile(file)
    except OSError:
        raise
    except Exception as error:  # it is Python, so anything
        raise ValueError(f'{file} is no config: {type(error).__name__}: {error}') from error


def finished(runs: Iterable[Run], judge: list[str]) -> tuple[list[Run], list[str]]:
    """The finished runs that the study still has, and why it has not the other trained ones."""
    found, others = [], []
    for run in (run for run in runs if run.is_trained):
        reason = run.outdated()
        if not reason and not run.is_finished(judge):
            reason = f'is trained, but not judged by {judge}'
        if reason:
            others.append(f'{run.name} {reason}')
        else:
            found.append(run)
    return found, others


def refuse_changes(runs: Iterable[Run]) -> None:
    """Raise ValueError for a run, or one that it needs, that the study does not have any more."""
    for run in {run.name: run for wanted in runs for run in (*wanted.needs, wanted)}.values():
        reason = run.outdated()
        if reason:
            raise ValueError(
                f'{run.name} {reason}: remove {run.folder} and {run.file} to train it again, or '
                'give the row another name'
            )


def difference(old: Any, new: Any, place: str = '') -> str:
    """The first place where two configs differ; '' if none."""
    found: Iterator[str] = iter(())
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(set(old) ^ set(new)):
            return f'{place}.{key}'.lstrip('.') + (' is gone' if key in old else ' is new')
        found = (difference(old[key], new[key], f'{place}.{key}') for key in old)
    elif isinstance(old, (list, tuple)) and type(old) is type(new) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        found = (difference(a, b, f'{place}[{i}]') for i, (a, b) in pairs)
    elif old != new:
        return f'{place.lstrip(".")}={old!r:.200}, now {new!r:.200}'
    return next((text for text in found if text), '')
