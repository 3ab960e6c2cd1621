"""Lists UCF-101 and HMDB-51 by their official split files.

UCF-101: https://www.crcv.ucf.edu/data/UCF101.php (Soomro et al., 2012)
HMDB-51: https://serre-lab.clps.brown.edu/resource/hmdb-a-large-human-motion-database/
(Kuehne et al., 2011)
"""

import pathlib
from collections.abc import Iterable, Mapping

from jaxmoe.data.listing.action_groups import HMDB51_GROUPS, UCF101_GROUPS, group_column
from jaxmoe.data.listing.listing import ListedFile, Listing, make_listing
from jaxmoe.data.listing.text import read_text
from jaxmoe.data.listing.walking import files_below, left_behind

_UCF_LISTS = ("ucfTrainTestlist", "UCF101TrainTestSplits-RecognitionTask/ucfTrainTestlist")
_HMDB_LISTS = ("testTrainMulti_7030_splits", "test_train_splits/testTrainMulti_7030_splits")
# In a line of an HMDB-51 split file, `1` is training, `2` is test, `0` is left out of this split.
_HMDB_SPLITS = {"1": "train", "2": "test"}


def list_ucf101(directory: pathlib.Path, split: int) -> Listing:
    """Lists UCF-101 by `trainlist0<split>.txt`, `testlist0<split>.txt` and `classInd.txt`.

    The videos may lie in `UCF-101/<Class>/`, in `<Class>/`, or anywhere below `directory`: their
    names are unique. The lists may lie in `ucfTrainTestlist/` inside `directory` or beside it.

    Args:
      directory: what the archive was extracted to, or the `UCF-101` folder itself.
      split: 1, 2 or 3.

    Returns:
      A `Listing` with splits train and test; classes in the order of `classInd.txt`.

    Raises:
      FileNotFoundError: the split files are missing.
      ValueError: `split` is not 1–3, a class is unknown, or not one listed video is there.
    """
    _check_split(split)
    names = ("classInd.txt", f"trainlist0{split}.txt", f"testlist0{split}.txt")
    folder = _find_lists(directory, _UCF_LISTS, names[1], "UCF101TrainTestSplits-RecognitionTask")
    for name in names:
        if not (folder / name).is_file():
            raise FileNotFoundError(f"data.directory: {folder} lacks {name}")
    classes = [_numbered_class(line, names[0]) for line in _lines(folder / names[0])]
    files = _videos_below(directory)
    videos = []
    for name, part in zip(names[1:], ("train", "test"), strict=True):
        for line in _lines(folder / name):
            path = line.rsplit(" ", 1)[0] if line.rsplit(" ", 1)[-1].isdigit() else line
            label, _, video = path.rpartition("/")
            if label not in classes:
                raise ValueError(f"data.directory: {name} has class {label!r}, not in {names[0]}")
            videos.append(_listed(directory, files, label, video, part, UCF101_GROUPS))
    return _checked(directory, videos, classes)


def list_hmdb51(directory: pathlib.Path, split: int) -> Listing:
    """Lists HMDB-51 by `<class>_test_split<split>.txt`, whose lines are `name.avi 0|1|2`.

    The videos lie in `<class>/` anywhere below `directory`. The lists may lie in
    `testTrainMulti_7030_splits/` inside `directory` or beside it.

    Args:
      directory: what the archives were extracted to, or the folder of the classes itself.
      split: 1, 2 or 3.

    Returns:
      A `Listing` with splits train and test; classes in alphabetical order.

    Raises:
      FileNotFoundError: the split files are missing.
      ValueError: `split` is not 1–3, a line is malformed, or not one listed video is there.
    """
    _check_split(split)
    ending = f"_test_split{split}.txt"
    folder = _find_lists(directory, _HMDB_LISTS, f"*{ending}", "test_train_splits.rar")
    files = _videos_below(directory)
    videos, classes = [], []
    for file in _matching(folder, f"*{ending}"):
        label = file.name.removesuffix(ending)
        classes.append(label)
        for line in _lines(file):
            name, _, flag = line.rpartition(" ")
            if flag not in ("0", "1", "2") or not name:
                raise ValueError(f"data.directory: {file}: {line!r} is not `name.avi 0|1|2`")
            if flag in _HMDB_SPLITS:
                place = label, name.strip(), _HMDB_SPLITS[flag]
                videos.append(_listed(directory, files, *place, HMDB51_GROUPS))
    return _checked(directory, videos, classes)


def ucf101_source(path: str) -> str:
    """The group of a clip: `v_Archery_g08_c01.avi` is cut from the same film as `…_g08_c02.avi`."""
    return path.rpartition("_c")[0]


def hmdb51_source(path: str) -> str:
    """The film of a clip, which stands before its class: `April_09` in `April_09_brush_hair_…`."""
    label, _, name = path.rpartition("/")
    return f"{label}/{name.partition(f'_{label}_')[0]}"


def _check_split(split: int) -> None:
    if split not in (1, 2, 3):
        raise ValueError(f"data.split: {split!r} is no official split; accepted are 1, 2, 3")


def _find_lists(
    directory: pathlib.Path, folders: Iterable[str], pattern: str, archive: str
) -> pathlib.Path:
    for root in (directory, directory.parent):
        for folder in (root, *(root / name for name in folders)):
            if _matching(folder, pattern):
                return folder
    raise FileNotFoundError(
        f"data.directory: no official split files ({pattern}) in {directory} or beside it; "
        f"extract {archive} there"
    )


def _matching(folder: pathlib.Path, pattern: str) -> list[pathlib.Path]:
    return sorted(file for file in folder.glob(pattern) if not left_behind(file.name))


def _numbered_class(line: str, name: str) -> str:
    number, *label = line.split(maxsplit=1)
    if not number.isdigit() or not label:
        raise ValueError(f"data.directory: {name}: {line!r} is not `1 ApplyEyeMakeup`")
    return label[0]


def _lines(file: pathlib.Path) -> list[str]:
    return [line.strip() for line in read_text(file, "data.directory").splitlines() if line.strip()]


def _videos_below(directory: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    files: dict[str, list[pathlib.Path]] = {}
    for file in files_below(directory):
        if file.suffix == ".avi":
            files.setdefault(file.name, []).append(file)
    return files


def _listed(
    directory: pathlib.Path,
    files: dict[str, list[pathlib.Path]],
    label: str,
    name: str,
    split: str,
    groups: Mapping[str, str],
) -> ListedFile:
    found = files.get(name, [])
    # Extracting twice leaves copies; the one in the folder of its class is the real one.
    in_class = [file for file in found if file.parent.name == label]
    file = (in_class or found or [directory / label / name])[0]
    columns = group_column(label, groups)
    return ListedFile(f"{label}/{name}", file, label, split, columns=columns)


def _checked(directory: pathlib.Path, videos: list[ListedFile], classes: list[str]) -> Listing:
    if not any(video.file.is_file() for video in videos):
        raise ValueError(
            f"data.directory: none of the {len(videos)} listed videos is below {directory}; "
            f"expected e.g. {videos[0].path if videos else '<class>/<name>.avi'}"
        )
    return make_listing(videos, classes, "data.directory")
