"""python -m tests.rehearsal: a suite offline, on small look-alikes of the benchmarks with the microworld's editors.

The look-alikes have the real layouts but pictures of noise, and their protocols name the microworld's networks, so the
numbers mean nothing; each table says so. Only the microworld's own table has real numbers. outputs/rehearsal receives
everything; run it again to continue.
"""

import subprocess
import sys
from pathlib import Path

import yaml
from PIL import ImageFilter

from data_prep.microworld.pack import pack
from regionedit.evaluation import BENCHMARKS, METRICS
from tests.benchmark_fixtures import WRITERS

OUT = Path("outputs/rehearsal")
CASES = 24  # of the microworld
PROTOCOLS = {  # benchmark -> its protocol
    "microworld": "microworld",
    "emu_edit": "ultraedit",
    "magicbrush": "magicbrush",
    "pie_bench": "pie",
    "comp_bench_local": "comp_bench_local",
}
NETWORKS = {"judge": "local-dir:checkpoints/microworld/judge", "dino": "checkpoints/microworld/dino"}
SYSTEMS = {
    "learned": "configs/edit_microworld.yaml",
    "attention": "configs/edit_microworld.yaml --mask_source ip2p_attention",
    "no region": "configs/edit_ip2p_microworld.yaml",
}


def write_suite(folder: Path) -> Path:
    """Write data, protocols and finished pictures below `folder`; the suite's file, which names them."""
    suite = folder / "suite.yaml"
    if suite.is_file():
        return suite
    benchmarks = {}
    for benchmark, protocol in PROTOCOLS.items():
        data = folder / "data" / benchmark
        if benchmark == "microworld":
            pack("test", CASES, data, workers=1, seed=0, shard_size=CASES)
        else:
            WRITERS[benchmark](data)
        path = _write_protocol(folder, protocol)
        benchmarks[benchmark] = f"{path.parent.parent / 'shared.yaml'} --benchmark {benchmark} --data {data}"
        benchmarks[benchmark] += f" --protocol {path}"
        for case in BENCHMARKS[benchmark](data):
            picture = folder / "blurred" / benchmark / f"{case.id}.png"
            picture.parent.mkdir(parents=True, exist_ok=True)
            case.request.image.filter(ImageFilter.GaussianBlur(1)).save(picture)
    (folder / "shared.yaml").write_text("baselines: [identity]\n")
    values = {"benchmarks": benchmarks, "systems": SYSTEMS | {"blurred": str(folder / "blurred")}}
    suite.write_text(yaml.safe_dump(values | {"against": "no region"}, sort_keys=False))
    return suite


def _write_protocol(folder: Path, name: str) -> Path:
    """The shipped protocol with the microworld's networks, without the columns of other networks."""
    values = yaml.safe_load(Path(f"configs/protocols/{name}.yaml").read_text())
    kept = {t: metric for t, metric in values["columns"].items() if METRICS[metric].backbone in (None, *NETWORKS)}
    needed = {METRICS[metric].backbone for metric in kept.values()}
    values |= {"columns": kept, "backbones": {k: v for k, v in NETWORKS.items() if k in needed}, "n": None}
    values["unstated"] = {k: v for k, v in values.get("unstated", {}).items() if k in (*values, *kept)}
    if name != "microworld":
        values["reference"] += " (REHEARSAL on noise, with tiny networks: these numbers mean nothing)"
    path = folder / "protocols" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def command(folder: Path) -> list[str]:
    suite = write_suite(folder)
    return [sys.executable, "evaluate.py", "--suite", str(suite), "--out", str(folder / "tables")]


if __name__ == "__main__":
    raise SystemExit(subprocess.run(command(OUT)).returncode)
