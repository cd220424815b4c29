"""The benchmarks, one file each. To add one, write its file and add a line to `BENCHMARKS`."""

from __future__ import annotations

from regionedit.evaluation.benchmarks.base import Benchmark
from regionedit.evaluation.benchmarks.comp_bench import (
    CompBench,
    CompBenchFirstTurn,
    CompBenchImplicit,
    CompBenchLocal,
    CompBenchMultiObject,
    CompBenchSecondTurn,
)
from regionedit.evaluation.benchmarks.dlebench import DleBench
from regionedit.evaluation.benchmarks.editing_mask import EditingMask
from regionedit.evaluation.benchmarks.emu_edit import EmuEdit, EmuEditUnfiltered
from regionedit.evaluation.benchmarks.folder import Folder
from regionedit.evaluation.benchmarks.gedit import GEdit, GEditChinese
from regionedit.evaluation.benchmarks.human_edit import HumanEdit
from regionedit.evaluation.benchmarks.imgedit import ImgEditBench
from regionedit.evaluation.benchmarks.magicbrush import MagicBrush, MagicBrushEveryTurn, MagicBrushMultiTurn
from regionedit.evaluation.benchmarks.microworld import Microworld
from regionedit.evaluation.benchmarks.pie_bench import PieBench

BENCHMARKS: dict[str, type[Benchmark]] = {
    "microworld": Microworld,
    "emu_edit": EmuEdit,
    "emu_edit_unfiltered": EmuEditUnfiltered,
    "magicbrush": MagicBrush,
    "magicbrush_multi_turn": MagicBrushMultiTurn,
    "magicbrush_every_turn": MagicBrushEveryTurn,
    "pie_bench": PieBench,
    "human_edit": HumanEdit,
    "editing_mask": EditingMask,
    "comp_bench": CompBench,
    "comp_bench_local": CompBenchLocal,
    "comp_bench_multi_object": CompBenchMultiObject,
    "comp_bench_implicit": CompBenchImplicit,
    "comp_bench_turn_1": CompBenchFirstTurn,
    "comp_bench_turn_2": CompBenchSecondTurn,
    "gedit": GEdit,
    "gedit_chinese": GEditChinese,
    "imgedit": ImgEditBench,
    "dlebench": DleBench,
    "folder": Folder,
}
