"""Settings of an evaluation: cases, systems, and the networks of the metrics."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from regionedit.config.editing import EditConfig
from regionedit.config.judges import VlmJudgeConfig
from regionedit.config.models import MICROWORLD


@dataclass
class EvaluateConfig(EditConfig):
    """`python evaluate.py --config FILE`: edit the cases of a benchmark and score the edits.

    Args:
        suite: run every system on every benchmark of configs/suites/NAME.yaml (or of another YAML file with the fields
            of SuiteConfig) and write one table for each: `--suite NAME --out FOLDER`. Other arguments, such as
            `--limit 20`, then apply to every evaluation. Run again to continue.
        benchmark: key of BENCHMARKS.
        data: the benchmark's folder.
        out: folder for pictures/, masks/, probability/, cases.parquet, summary.json, report.html, examples.png. Run
            again to continue.
        stage: `edit` only makes pictures (several processes share the cases: torchrun or srun), `judge` only sends
            finished ones to the model in `vlm_judge`, `score` only scores finished ones from their pictures and stored
            answers, `both` does one after the other in a single process.
        pictures: score these finished pictures, named by case id, instead of editing; or the `out` of another run.
        limit: evaluate only this many first cases, 0 for all.
        ids: a file with the ids of the cases to keep, a JSON list or one a line, or None.
        protocol: a published protocol of configs/protocols/, or a file of the same form: it sets the metrics' networks
            and the columns. None: the benchmark's own metrics with the networks below.
        expected: metric -> published mean that this run should reproduce; the comparison is printed at the end.
        tolerance: largest difference from `expected` that counts as reproduced.
        regions_only: find regions and score them; no generator is loaded and nothing is edited.
        given_captions: the editor gets the benchmark's captions, against which its edits may be scored; false lets the
            describer write them. The protocol block records which, and the two never share a column.
        grid: side of the grid on which regions are scored; 0: the predictor's, which is that of encoders.clip.
        baselines: keys of BASELINES whose regions are scored beside the editor's own.
        edited_baselines: those of them that also edit, with the same generator.
        systems: name -> an infer.py configuration that edits the same cases, in a row of its own; arguments may follow
            the file's name, such as `configs/edit_microworld.yaml --mask_source sam`.
        systems_limit: how many first cases they edit, 0 for all; their table shows this run on the same cases.
        validation: shards with truth on which the baseline clip_similarity chooses its threshold, or None.
        validation_samples: number of samples used from them.
        ceiling: summary.json of the same predictor trained with masks, which the table shows as the ceiling, or None.
        training_log: metrics.csv of the training run whose curves the report shows, or None.
        debug: print the stack trace of an error; otherwise one line is printed, and the stack trace of an unexpected
            error is in log.txt in `out`.
        note: a sentence at the head of the report that helps to read the numbers.
        judge: the CLIP of the metrics, which no loss uses: `local-dir:FOLDER`, `hf-hub:OWNER/NAME`, or open_clip's
            `ARCHITECTURE,TAG` such as ViT-B-32,openai.
        dino: the ViT of the metric dino.
        dinov2: the ViT of the metric dinov2; None: the metric is not computed. The same holds for the next three.
        pick_score: model and processor of PickScore, `model` or `model,processor`.
        structure: the ViT whose keys measure the structure distance.
        lpips: the network of LPIPS: alex, vgg or squeeze.
        vlm_judge: the vision-language model that scores edits by the benchmark's rubric.
    """

    suite: str | None = None
    benchmark: str = "microworld"
    data: str = "data/microworld/test"
    out: str = "outputs/evaluate"
    stage: Literal["both", "edit", "judge", "score"] = "both"
    pictures: str | None = None
    limit: int = 0
    ids: str | None = None
    protocol: str | None = None
    expected: dict[str, float] = field(default_factory=dict)
    tolerance: float = 0.01
    regions_only: bool = False
    given_captions: bool = True
    grid: int = 0
    baselines: list[str] = field(default_factory=list)
    edited_baselines: list[str] = field(default_factory=list)
    systems: dict[str, str] = field(default_factory=dict)
    systems_limit: int = 0
    validation: str | None = None
    validation_samples: int = 512
    ceiling: str | None = None
    training_log: str | None = None
    note: str = ""
    debug: bool = False
    judge: str = f"local-dir:{MICROWORLD}/judge"
    dino: str = f"{MICROWORLD}/dino"
    dinov2: str | None = None
    pick_score: str | None = None
    structure: str | None = None
    lpips: str | None = None
    vlm_judge: VlmJudgeConfig = field(default_factory=VlmJudgeConfig)


@dataclass
class SuiteConfig:
    """configs/suites/NAME.yaml, for `python evaluate.py --suite NAME`.

    Args:
        benchmarks: name -> an evaluate.py configuration; arguments may follow the file's name, such as
            `configs/evaluate_magicbrush.yaml --protocol magicbrush --limit 100`. Its settings of the editor are
            replaced by those of each system. The name is that of a folder in `out`.
        systems: name -> an infer.py configuration, again with arguments; or a folder of finished pictures that has a
            folder for each benchmark, under the benchmark's name here, with pictures named by case id. The system's
            name is that of a row and of a folder.
        against: the system from which the others' paired differences are computed.
    """

    benchmarks: dict[str, str] = field(default_factory=dict)
    systems: dict[str, str] = field(default_factory=dict)
    against: str = ""

    def __post_init__(self):
        for key in ("benchmarks", "systems"):
            if not getattr(self, key):
                raise ValueError(f"{key}: none; give `name: file` lines")
            for name in getattr(self, key):
                if not name.strip() or name.startswith(".") or "/" in name:
                    raise ValueError(f"{key}: {name!r} cannot name a folder")
        if self.against not in self.systems:
            raise ValueError(f"against: {self.against!r} is no system; there are: {', '.join(self.systems)}")
