"""Turn your own download of a benchmark into the folder that evaluate.py reads, and check that it is complete.

    python data_prep/prepare_benchmarks.py emu_edit   --download DIR      --out data/benchmarks/emu_edit
    python data_prep/prepare_benchmarks.py magicbrush --download test.zip --out data/benchmarks/magicbrush --password X
    python data_prep/prepare_benchmarks.py pie_bench  --download DIR|ZIP  --out data/benchmarks/pie_bench
    python data_prep/prepare_benchmarks.py human_edit --download DIR      --out data/benchmarks/human_edit

The command downloads nothing and passes nothing on: the licences are between you and the authors, and the prepared
folder stays on your machine. Files are linked where the file system allows it, archives are unpacked, and every picture
is opened once. If a count differs from the published one, the command exits with 1, because scores on such a folder are
not comparable with published ones.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rich.console import Console
from rich.progress import track

from regionedit.command_line import errors_in_one_line
from regionedit.evaluation.benchmarks import BENCHMARKS, emu_edit, human_edit, magicbrush, pie_bench
from regionedit.evaluation.benchmarks.base import Benchmark
from regionedit.evaluation.benchmarks.layout import found_in, require_finished
from regionedit.evaluation.benchmarks.splits import choose_split, read_splits

MOST_BYTES = 200 << 30  # largest total size of an archive's unpacked files
NOISE = ("__MACOSX", ".DS_Store", "Thumbs.db")


@dataclass(frozen=True)
class Published:
    """What is known of a benchmark.

    Args:
        counts: published counts, under the names that its reader uses.
        marker: a file at the top of its folder; None for a table of rows on the hub.
        licence: printed at the end.
    """

    counts: dict[str, int]
    marker: str | None
    licence: str


PUBLISHED = {
    "emu_edit": Published({"rows": emu_edit.ROWS}, None, "CC BY-NC 4.0: not for commercial use"),
    "magicbrush": Published(
        {"sessions": magicbrush.SESSIONS, "turns": magicbrush.TURNS},
        "edit_sessions.json",
        "CC BY 4.0; its authors request not to put the unpacked test set online, so that no model trains on it",
    ),
    "pie_bench": Published(
        {"cases": pie_bench.CASES}, "mapping_file.json", "available through a form; see its authors' page"
    ),
    "human_edit": Published({"rows": human_edit.ROWS}, None, "CC BY 4.0"),
}
HUB_NAMES = {"emu_edit": (emu_edit.HUB_NAME, emu_edit.ROWS), "human_edit": (human_edit.HUB_NAME, human_edit.ROWS)}


def prepare(name: str, download: Path, out: Path, password: str | None = None) -> Benchmark:
    """Make the folder, unless it exists, and read all of it; returns the benchmark.

    Args:
        name: a key of PUBLISHED.
        download: a folder or a zip archive, perhaps with a password.

    Raises:
        ValueError: not that benchmark, an unfinished download, a wrong or missing password, a broken picture.
        OSError: no space or no permission; no incomplete folder is left at `out`.
    """
    if not out.exists():
        if not download.exists():
            raise ValueError(f"download: {download}: no such file or folder")
        building = out.with_name(f".{out.name}.{os.getpid()}.part")
        try:
            building.mkdir(parents=True)
            if name in HUB_NAMES:
                _link_split(download, building, *HUB_NAMES[name])
            elif download.is_dir():
                _link_folder(download, building, PUBLISHED[name].marker)
            else:
                _unpack(download, building, PUBLISHED[name].marker, password)
            building.rename(out)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the counts, which are printed below
        benchmark = BENCHMARKS[name](out)
        for _ in track(benchmark, "opening every picture", len(benchmark), console=Console(stderr=True)):
            pass
    return benchmark


def differences(name: str, counts: dict[str, int]) -> list[str]:
    """The counts that differ from the published ones, one line each."""
    return [
        f"{what}: {counts.get(what, 0):,}, published: {count:,}"
        for what, count in PUBLISHED[name].counts.items()
        if counts.get(what, 0) != count
    ]


def _link_split(download: Path, out: Path, hub_name: str, rows: int) -> None:
    """Link the shards of the benchmark's split; other files of the download are ignored."""
    for file in choose_split(read_splits(download, hub_name), rows).files:
        _link(file, out / file.name)


def _link_folder(download: Path, out: Path, marker: str) -> None:
    require_finished(download)
    top = _top(sorted(p.relative_to(download) for p in download.rglob(marker)), download, marker)
    for file in sorted(p for p in (download / top).rglob("*") if p.is_file() and p.name not in NOISE):
        _link(file, out / file.relative_to(download / top))


def _link(file: Path, to: Path) -> None:
    """Make a hard link, or a copy where the file system allows no link."""
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(file.resolve(), to)
    except OSError:
        shutil.copyfile(file, to)


def _unpack(archive: Path, out: Path, marker: str, password: str | None) -> None:
    """Unpack the folder that holds the marker, with its subfolders; names that lead out of the folder are refused."""
    try:
        with zipfile.ZipFile(archive) as packed:
            names = [
                m for m in packed.infolist() if not m.is_dir() and not set(PurePosixPath(m.filename).parts) & {*NOISE}
            ]
            if sum(member.file_size for member in names) > MOST_BYTES:
                raise ValueError(
                    f"download: {archive} unpacks to more than {MOST_BYTES >> 30} GiB, too much for this benchmark; "
                    "download the right archive"
                )
            markers = sorted(Path(m.filename) for m in names if PurePosixPath(m.filename).name == marker)
            top = _top(markers, archive, marker)
            if password is not None:
                packed.setpassword(password.encode())
            for member in track(names, "unpacking", console=Console(stderr=True)):
                name = PurePosixPath(member.filename)
                if name.is_absolute() or ".." in name.parts:
                    raise ValueError(f"download: {archive} holds {member.filename}, which leads out of its folder")
                if name.is_relative_to(top.as_posix()):
                    to = out / name.relative_to(top.as_posix())
                    to.parent.mkdir(parents=True, exist_ok=True)
                    with packed.open(member) as source, to.open("wb") as target:
                        shutil.copyfileobj(source, target)
    except zipfile.BadZipFile as error:
        raise ValueError(
            f"download: {archive}: {error}; download it again, or unpack it yourself and give the folder"
        ) from None
    except NotImplementedError as error:
        raise ValueError(f"download: {archive}: {error}; unpack it yourself (7z x) and give the folder") from None
    except RuntimeError as error:  # zipfile raises it for a missing or wrong password
        raise ValueError(f"password: {error}; give the authors' password with --password") from None


def _top(markers: list[Path], download: Path, marker: str) -> Path:
    """The folder inside the download that holds the marker."""
    if not markers:
        there = f"; found: {found_in(download)}" if download.is_dir() else ""
        raise ValueError(f"download: {download} holds no {marker}; give the folder or archive of this benchmark{there}")
    return min(markers, key=lambda path: len(path.parts)).parent


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("benchmark", choices=sorted(PUBLISHED))
    parser.add_argument("--download", type=Path, required=True, help="folder or zip archive that you have downloaded")
    parser.add_argument("--out", type=Path, required=True, help="folder to make, for evaluate.py --data")
    parser.add_argument("--password", help="password of the archive, from its authors")
    arguments = parser.parse_args(argv)
    name = arguments.benchmark
    with errors_in_one_line("prepare_benchmarks.py"):
        benchmark = prepare(name, arguments.download, arguments.out, arguments.password)
    print(f"{arguments.out}: {', '.join(f'{what} {count:,}' for what, count in benchmark.counts.items())}")
    print(f"Licence: {PUBLISHED[name].licence}. Do not pass the folder on.")
    if lines := differences(name, benchmark.counts):
        print(
            f"prepare_benchmarks.py: {'; '.join(lines)}: scores are not comparable with published ones", file=sys.stderr
        )
        raise SystemExit(1)


if __name__ == "__main__":
    main()
