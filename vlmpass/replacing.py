"""What an output may take the place of: no source ever, and nothing foreign unasked."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path

import onnx_ir as ir

from vlmpass.ir_tools.errors import ModelError, SaveError
from vlmpass.ir_tools.graph.walk import tensor_slots
from vlmpass.ir_tools.load.parse import parse_file
from vlmpass.ir_tools.save import SaveReport
from vlmpass.ir_tools.save.commits import note_commit, unwatched
from vlmpass.ir_tools.save.references import Folder, data_files_of
from vlmpass.ir_tools.save.staging import Staging
from vlmpass.ir_tools.weights import StoredWeight

__all__ = ["Replacement", "Sources", "made_folder", "refuse_foreign", "refuse_taken", "replacement"]


def refuse_foreign(path: Path, force: bool) -> None:
    """Refuse to replace a file that is not a model, unless that is asked for.

    Raises:
        SaveError: It exists, and is none.
    """
    if force or not os.path.exists(path):
        return
    if not os.path.isfile(path):
        raise SaveError(f"{path} exists and is no file", remedy="choose another name")
    try:
        if path.stat().st_size:
            parse_file(path)
            return
    except ModelError:
        pass
    raise SaveError(f"{path} exists and is not an ONNX model", remedy="--force replaces it")


def refuse_taken(path: Path, force: bool) -> None:
    """Refuse a name that something has, unless it may be replaced; a folder never is.

    Raises:
        SaveError: It has.
    """
    if os.path.isdir(path) and not os.path.islink(path):
        raise SaveError(f"{path} is a folder", remedy="name another folder")
    if os.path.lexists(path) and not force:
        raise SaveError(f"{path} exists", remedy="--force replaces it; or name another folder")


class Sources:
    """The files that an output is made of.

    Args:
        *sources: Models, as `load` takes them, and paths of other files. What is not there has
            none: whoever reads it says so.
    """

    def __init__(self, *sources: object) -> None:
        self._sources = sources

    @cached_property
    def _files(self) -> dict[tuple[int, int], str]:
        """What a file is to the output, by its device and number; links and what they lead to."""
        found: dict[tuple[int, int], str] = {}
        for source in self._sources:
            for path, what in _files_of(source):
                for look in (os.lstat, os.stat):
                    with suppress(OSError, ValueError):
                        status = look(path)
                        found.setdefault((status.st_dev, status.st_ino), what)
        return found

    def has(self, path: Path) -> str:
        """Return what the file of a name is to the output, empty if nothing."""
        try:
            status = os.lstat(path)
        except OSError:
            return ""
        return self._files.get((status.st_dev, status.st_ino), "")

    def refuse(self, path: Path) -> None:
        """Refuse to write over one, even by force.

        Raises:
            SaveError: It is one.
        """
        if what := self.has(path):
            raise SaveError(f"{path} is {what}, which stays as it is", remedy="choose another name")


def _files_of(source: object) -> Iterator[tuple[str | Path, str]]:
    if isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        if isinstance(path, str):
            yield path, "what it is made of"
            with suppress(OSError, ValueError):
                yield from ((each, "a file of its weights") for each in data_files_of(Path(path)))
    model = source if isinstance(source, ir.Model) else getattr(source, "model", None)
    for slot in tensor_slots(model) if isinstance(model, ir.Model) else ():
        if isinstance(slot.tensor, StoredWeight):
            yield slot.tensor.path, "a file of its weights"


@contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """Make a folder where there is none; it goes again where nothing comes into it.

    Raises:
        SaveError: It cannot be made.
    """
    made: list[Path] = []
    try:
        for each in reversed([folder, *folder.absolute().parents]):
            if not os.path.isdir(each):
                try:
                    each.mkdir()
                except OSError as error:
                    raise SaveError(
                        f"the folder {each} cannot be made: {error.strerror}",
                        remedy="name another folder",
                    ) from error
                made.append(each)
        yield
    finally:
        with suppress(OSError):
            for each in reversed(made):
                each.rmdir()


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))


class Replacement:
    """Files that take the places of others as a set.

    Args:
        folder: A temporary one beside them, for what is prepared and for what is replaced.
        last: The file of theirs that takes its place last.

    Attributes:
        made: What has its name already.
    """

    def __init__(self, folder: Path, last: Path) -> None:
        self.folder = folder
        self._last = _absolute(last)
        self.made: list[Path] = []
        self._aside: list[tuple[Path, Path]] = []

    def set_aside(self, models: Iterable[Path], others: Iterable[Path], sources: Sources) -> None:
        """Move what is replaced out of the way, the data files that only it refers to as well.

        Args:
            models: Model files, there or not.
            others: Other files, there or not.
            sources: What stays in any case.

        Raises:
            SaveError: Something cannot be moved.
        """
        those, data = [*map(_absolute, models)], list[Path]()
        if those:
            owners = Folder(*those)
            data = [path for path in sorted(owners.replaced) if owners.owns(path)]
        # The last file of the set goes first: without it the others say nothing.
        for path in dict.fromkeys((self._last, *those, *map(_absolute, others), *data)):
            if os.path.lexists(path) and not sources.has(path):
                self._move(path)

    def _move(self, path: Path) -> None:
        away = self.folder / f"old{len(self._aside)}"
        try:
            path.rename(away)
        except OSError as error:
            raise SaveError(f"{path} cannot be replaced: {error.strerror}") from error
        self._aside.append((away, path))

    def put(self, prepared: Path, final: Path) -> None:
        """Give a prepared file its name.

        Raises:
            SaveError: It cannot have it.
        """
        try:
            prepared.replace(final)
        except OSError as error:
            raise SaveError(f"{final} cannot be written: {error.strerror}") from error
        self.made.append(final)

    def add(self, saved: SaveReport) -> SaveReport:
        """Note a model that was saved, and return it."""
        folder = Path(saved.path).parent
        self.made += [folder / file.name for file in saved.files if file.how != "kept"]
        return saved

    def undo(self) -> bool:
        """Remove what is new and put back what was there; say whether all could be."""
        for path in reversed(self.made):
            with suppress(OSError):
                path.unlink()
        back = True
        for away, path in reversed(self._aside):
            try:
                away.replace(path)
            except OSError:
                back = False
        return back


@contextmanager
def replacement(target: Path) -> Iterator[Replacement]:
    """Give a set of files that take their places all together, or, if anything fails, not at all.

    Until then nobody is told that one of them stands; a kill while they change places may leave
    neither the old set nor the new one whole, and then the last file of the set is not there.

    Args:
        target: The last one, in whose folder they all lie.
    """
    staging = Staging(target)
    files, keep = Replacement(staging.path, target), False
    try:
        with unwatched():
            yield files
    except BaseException:
        keep = not files.undo()
        raise
    finally:
        staging.close(keep=keep)
    if files.made:
        note_commit(target)
