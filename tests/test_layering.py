"""Rules for the source files: imports point down, slow libraries wait until they are used, some calls are forbidden.

Every rule reads the source (`ast`), so that an import inside a function or under TYPE_CHECKING counts as well.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "regionedit"

LEVELS = {
    0: {
        "records", "chat_client", "command_line", "config", "display", "error_log", "files", "images", "masks",
        "microworld", "device", "provenance", "request_files", "list_files", "picture_folders", "mask_files",
        "mask_meaning", "mask_operations", "keywords", "token_spans", "results", "seams", "resampling", "originals",
        "picture_files", "misread_files", "picture_metadata", "registration", "result_files", "edit_steps", "progress",
    },
    1: {"encoders", "attention", "losses", "frozen_conv", "proposal_masks", "region_scores"},
    2: {"region_predictor", "generators", "describe"},
    3: {"mask_sources", "crop_and_stitch", "cut_objects", "dtypes", "region_search"},
    4: {"models", "data"},
    5: {"editor", "training"},
    6: {"evaluation", "batch"},
    7: {"web"},
}  # fmt: skip
LEVEL = {name: level for level, names in LEVELS.items() for name in names}
ABOVE_THE_PACKAGE = {"train", "infer", "evaluate", "app", "data_prep", "experiments", "benchmarks", "tests"}
SLOW_TO_IMPORT = {"aiohttp", "diffusers", "transformers", "open_clip", "gradio", "ray", "lightning"}
LIGHTNING = {"lightning", "pytorch_lightning"}
MOST_LINES = 300


def python_files(*places: Path) -> list[Path]:
    return [file for place in places for file in ([place] if place.is_file() else sorted(place.rglob("*.py")))]


def shipped_files() -> list[Path]:
    return python_files(SOURCE, *ROOT.glob("*.py"), ROOT / "data_prep", ROOT / "experiments", ROOT / "benchmarks")


def place(file: Path) -> str:
    return str(file.relative_to(ROOT))


def imports(tree: ast.AST) -> Iterator[str]:
    """Dotted names of what is imported; for `from a import b` both a and a.b, since b may be a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide their level"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def roots(tree: ast.AST) -> set[str]:
    """The top-level packages that are imported."""
    return {name.split(".")[0] for name in imports(tree)}


@cache
def parse(file: Path) -> ast.Module:
    return ast.parse(file.read_text(), str(file))


def unit(file: Path) -> str:
    """The name that has a level: the module, or the package it lies in."""
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


def used_units(file: Path) -> set[str]:
    return {name.split(".")[1] for name in imports(parse(file)) if name.startswith("regionedit.")}


PACKAGE = [file for file in python_files(SOURCE) if unit(file) != "__init__"]


def test_imports_point_down():
    wrong = []
    for file in PACKAGE:
        own = unit(file)
        if own not in LEVEL:
            wrong.append(f"{place(file)}: give {own} a level")
            continue
        for used in used_units(file) - {own}:
            if used not in LEVEL:
                wrong.append(f"{place(file)} imports regionedit.{used}, which has no level")
            elif LEVEL[used] >= LEVEL[own] and not LEVEL[used] == LEVEL[own] == 0:
                wrong.append(f"{place(file)} (level {LEVEL[own]}) imports regionedit.{used} (level {LEVEL[used]})")
    assert not wrong


def test_the_lowest_level_has_no_cycle():
    uses = {own: {u for f in PACKAGE if unit(f) == own for u in used_units(f)} & LEVELS[0] - {own} for own in LEVELS[0]}
    TopologicalSorter(uses).prepare()  # raises CycleError, which names the modules


def test_the_package_imports_nothing_that_stands_on_it():
    assert not [place(file) for file in PACKAGE if roots(parse(file)) & ABOVE_THE_PACKAGE]


def may_know_lightning(file: Path) -> bool:
    return unit(file) == "training" or place(file).endswith("data/datamodule.py")


def test_only_training_and_the_datamodule_know_lightning():
    assert not [place(file) for file in PACKAGE if roots(parse(file)) & LIGHTNING and not may_know_lightning(file)]


def test_slow_libraries_are_imported_when_they_are_used():
    wrong = []
    for file in PACKAGE:
        at_once = [node for node in parse(file).body if isinstance(node, ast.Import | ast.ImportFrom)]
        slow = {name for node in at_once for name in roots(node)} & SLOW_TO_IMPORT
        if may_know_lightning(file):
            slow -= LIGHTNING  # their classes inherit from Lightning's
        wrong += [f"{place(file)} imports {name} at once" for name in sorted(slow)]
    assert not wrong


def test_preparing_data_does_not_wait_for_lightning():
    """Its import takes seconds of every process."""
    brings_it = ("lightning", "regionedit.training", "regionedit.data.datamodule")
    files = sorted((ROOT / "data_prep").glob("*.py"))
    assert not [place(f) for f in files if any(name.startswith(brings_it) for name in imports(parse(f)))]


def test_configuration_and_records_need_no_torch():
    program = "import sys, regionedit.config, regionedit.records; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "False\n"


def test_every_file_of_the_package_can_be_read_at_once():
    lengths = {place(file): len(file.read_text().splitlines()) for file in python_files(SOURCE)}
    assert lengths and not {name: lines for name, lines in lengths.items() if lines > MOST_LINES}


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Every call with its name as written, `a.b.c` or, on an expression, `.c`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func) if isinstance(node.func, ast.Name | ast.Attribute) else ""
            yield name, node


def keyword(call: ast.Call, name: str):
    return next((ast.unparse(k.value) for k in call.keywords if k.arg == name), None)


def test_a_detached_loss_is_never_hidden():
    """`loss.requires_grad_(True)` lets a training step run whose gradient reaches nothing.

    The package never needs the call; pre-training thaws a network that an evaluation froze.
    """
    wrong = []
    for file in shipped_files():
        for name, call in calls(parse(file)):
            if name.endswith(".requires_grad_"):
                wanted = ast.unparse(call.args[0]) if call.args else keyword(call, "requires_grad")
                thaws = place(file).startswith("experiments/") and "loss" not in name
                wrong += [f"{place(file)}:{call.lineno}"] if wanted != "False" and not thaws else []
    assert not wrong


def test_unused_parameters_are_never_searched_for():
    texts = [*shipped_files(), *(ROOT / "configs").rglob("*.yaml")]
    wrong = [place(file) for file in texts if "find_unused_parameters_true" in file.read_text()]
    wrong += [place(file) for file in texts if file.suffix == ".yaml" and "find_unused_parameters" in file.read_text()]
    for file in shipped_files():
        for _, call in calls(parse(file)):
            searched = keyword(call, "find_unused_parameters") not in (None, "False")
            wrong += [f"{place(file)}:{call.lineno}"] if searched else []
    assert not wrong


def test_no_file_that_could_run_code_is_loaded():
    unsafe = {"pickle", "dill", "cloudpickle", "joblib", "shelve"}
    wrong = [
        f"{place(file)} imports one of {sorted(unsafe)}" for file in shipped_files() if roots(parse(file)) & unsafe
    ]
    for file in shipped_files():
        for name, call in calls(parse(file)):
            pickled = name == "torch.load" and keyword(call, "weights_only") != "True"
            pickled = pickled or keyword(call, "allow_pickle") not in (None, "False")
            wrong += [f"{place(file)}:{call.lineno}"] if pickled else []
    assert not wrong


def test_the_rules_catch_what_they_forbid():
    """Each rule on a line that breaks it; a rule that cannot fail guards nothing."""
    tree = ast.parse(
        "def f():\n    from regionedit.editor import Editor\nloss.requires_grad_(True)\n"
        "DDP(m, find_unused_parameters=True)\nimport pickle\ntorch.load(p)\n"
    )
    assert "regionedit.editor" in set(imports(tree)) and "pickle" in set(imports(tree))
    found = dict(calls(tree))
    assert ast.unparse(found["loss.requires_grad_"].args[0]) == "True"
    assert keyword(found["DDP"], "find_unused_parameters") == "True"
    assert keyword(found["torch.load"], "weights_only") is None
