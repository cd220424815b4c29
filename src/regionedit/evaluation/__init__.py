"""Evaluation: edits every case of a benchmark, then scores the saved pictures.

To add a metric, add an entry to `METRICS`, and a subclass of `Measure` if none of them computes it. To add a benchmark,
add one line to `BENCHMARKS` in benchmarks/__init__.py. A metric's name includes its reference: `l1` compares with the
target picture, `l1_source` with the source, so that two protocols never share a column by accident.
"""

from __future__ import annotations

from regionedit.evaluation.benchmarks import BENCHMARKS
from regionedit.evaluation.comp_bench_metrics import BoxPicture, BoxText, SquareBackground
from regionedit.evaluation.embedding_metrics import (
    Direction,
    InstructionRank,
    PickScore,
    PictureSimilarity,
    TextSimilarity,
)
from regionedit.evaluation.judge_metrics import OR_ZERO, UNANSWERED, Judged
from regionedit.evaluation.landing_metrics import Landed
from regionedit.evaluation.metrics import Measure
from regionedit.evaluation.microworld_scores import (
    MicroworldMeasure,
    background_iou,
    inside,
    objects_kept,
    pointing,
    pointing_chance,
    size_ratio,
    success,
)
from regionedit.evaluation.pixel_metrics import (
    Background,
    ChangeOutside,
    PixelDifference,
    StructureDistance,
    lpips_of,
    mse_of,
    psnr_of,
    ssim_of,
)
from regionedit.evaluation.region_metrics import (
    CellRegion,
    CellRegionBest,
    ChangeIoU,
    PixelRegion,
    area,
    iou,
    precision,
    recall,
)
from regionedit.evaluation.turn_metrics import AccumulatedChange

__all__ = ["BENCHMARKS", "METRICS"]

TARGET_PICTURE = ("target pictures",)
TARGET_CAPTION = ("target captions",)
REGION_AND_TARGET = ("regions", "target pictures")

METRICS: dict[str, Measure] = {
    # Intersection over union of the region's cells and the true cells.
    "region_iou": CellRegion(title="IoU", compare=iou),
    # Region IoU at the threshold that is best for the whole set: what a better threshold alone could gain.
    "region_iou_best": CellRegionBest(title="IoU best"),
    # Share of the region's cells that are true; NaN if the region is empty.
    "region_precision": CellRegion(title="prec.", compare=precision),
    # Share of the true cells that are in the region; NaN if no cell is true.
    "region_recall": CellRegion(title="recall", compare=recall),
    # Share of the grid's cells that are in the region.
    "region_area": CellRegion(title="area", compare=area),
    # Intersection over union of the region and the pixels of which the human mask covers more than half.
    "region_iou_pixel": PixelRegion(title="IoU pixel", compare=iou),
    # The same for the mask that was edited: the region after refining, growing and thresholding by the editor's
    # settings. NaN without a mask.
    "mask_iou": PixelRegion(title="IoU mask", compare=iou, edited_mask=True),
    # Share of the region's pixels that the human mask covers; NaN if the region is empty.
    "region_precision_pixel": PixelRegion(title="prec. pixel", compare=precision),
    # Share of the human mask's pixels that are in the region; NaN if the mask is empty.
    "region_recall_pixel": PixelRegion(title="recall pixel", compare=recall),
    # Intersection over union of the region and the pixels in which source and target picture differ.
    "region_iou_changed": PixelRegion(title="IoU changed", compare=iou, changed=True, needs=REGION_AND_TARGET),
    # Share of the region's pixels in which source and target picture differ; NaN if the region is empty.
    "region_precision_changed": PixelRegion(
        title="prec. changed", compare=precision, changed=True, needs=REGION_AND_TARGET
    ),
    # Share of the pixels in which source and target picture differ that are in the region.
    "region_recall_changed": PixelRegion(title="recall changed", compare=recall, changed=True, needs=REGION_AND_TARGET),
    # Intersection over union of the pixels that the editor changed and the human mask.
    "change_iou": ChangeIoU(title="change IoU", needs=("masks",), headline=True),
    # The same with the mask of the evaluation's own editor: how well an edit without a region stays inside that mask
    # (Mask-Blended Inference).
    "change_iou_focus": ChangeIoU(title="change IoU region", focus=True, needs=("regions of the editor itself",)),
    # Where the edit landed. The four compare the change map of source and edited picture with the true mask. The map
    # ignores a global shift, colour drift and JPEG noise, so they also suit editors without a region.
    # Intersection over union; 0 for an unedited source.
    "landed_iou": Landed(title="landed IoU", what="iou"),
    # Share of the changed pixels that are outside the mask; NaN if nothing changed.
    "landed_outside": Landed(title="landed outside", what="outside", higher_is_better=False),
    # Whether the box around the changed pixels has its centre where the mask's box has it; NaN if nothing changed.
    "landed_position": Landed(title="landed position", what="position"),
    # Whether the area of that box is .8 to 1.2 times that of the mask's box; NaN if nothing changed.
    "landed_size": Landed(title="landed size", what="size"),
    # Whether the named object has the highest mean probability of all objects in the scene. A tie of k objects that
    # includes the named one counts 1/k, so a constant map scores chance. NaN with one object.
    "pointing": MicroworldMeasure(title="pointing", score_edit=pointing, of_region=True, headline=True),
    # The score of pointing at random: one over the number of objects.
    "pointing_chance": MicroworldMeasure(title="chance", score_edit=pointing_chance, of_region=True, headline=True),
    # Add: share of the region that lies in free space, on the stated side of the object that the instruction names.
    "add_inside": MicroworldMeasure(title="valid space", score_edit=inside, operation="add", of_region=True),
    # Add: area of the region over the area of the object in the true edit; 1 means equal areas.
    "add_size_ratio": MicroworldMeasure(
        title="size ratio", score_edit=size_ratio, operation="add", of_region=True, higher_is_better=None
    ),
    # Add: whether the new object is visible in its place.
    "add_present": MicroworldMeasure(title="present", score_edit=success, operation="add"),
    # Background: pixel IoU of the region with the complement of all objects.
    "background_iou": MicroworldMeasure(
        title="rest IoU", score_edit=background_iou, operation="background", of_region=True
    ),
    # Whether the requested change is visible, checked by colour and shape of the pixels without a network.
    "edit_success": MicroworldMeasure(title="success", score_edit=success),
    # 1 minus the mean absolute change in the boxes of the objects that should stay; 1 if all are untouched.
    "objects_kept": MicroworldMeasure(title="objects kept", score_edit=objects_kept),
    # Mean absolute change of the pixels that neither the predicted nor the true region touches, in [0, 1]; exactly 0
    # for an editor that changes nothing outside its region.
    "outside_change": ChangeOutside(title="outside", regions=("mask", "truth"), needs=("regions",)),
    # Mean absolute change of the pixels that the true region does not touch: what the instruction does not request.
    "outside_truth_change": ChangeOutside(title="outside truth", regions=("truth",), needs=("masks",)),
    # Sessions of which every turn is scored: mean absolute change from the session's first picture outside the true
    # masks of all turns so far; exactly 0 for an editor that changes nothing else in any turn.
    "accumulated_change": AccumulatedChange(title="accumulated"),
    # Mean absolute difference from the target picture, in [0, 1].
    "l1": PixelDifference(title="L1", reference="target", power=1, needs=TARGET_PICTURE),
    # Mean squared difference from the target picture, in [0, 1], never above L1; "L2" in the literature is no norm.
    "l2": PixelDifference(title="L2", reference="target", power=2, needs=TARGET_PICTURE),
    # Mean absolute difference from the source picture, in [0, 1] (Emu Edit's L1); 0 for an unchanged picture.
    "l1_source": PixelDifference(title="L1 source", reference="source", power=1),
    # Mean squared difference from the source picture, in [0, 1]; 0 for an unchanged picture.
    "l2_source": PixelDifference(title="L2 source", reference="source", power=2),
    # CLIP-I of MagicBrush: cosine of CLIP's embeddings of the edited and the target picture.
    "clip_image": PictureSimilarity(title="CLIP img", reference="target", backbone="judge", needs=TARGET_PICTURE),
    # CLIPimg of Emu Edit: cosine of CLIP's embeddings of the edited and the source picture.
    "clip_image_source": PictureSimilarity(title="CLIP img source", reference="source", backbone="judge"),
    # CLIP-T of MagicBrush, CLIPout of Emu Edit: cosine of CLIP's embeddings of edited picture and target caption.
    # MagicBrush's figures use its local descriptions as target captions.
    "clip_text": TextSimilarity(title="CLIP text", needs=TARGET_CAPTION),
    # Cosine of CLIP's embeddings of the edited picture and the instruction, in [-1, 1].
    "clip_instruction": TextSimilarity(title="CLIP instr.", text="instruction"),
    # Rank of the case's own instruction among up to 100 of the benchmark, by cosine with the edited picture; 1 is the
    # best.
    "clip_instruction_rank": InstructionRank(title="instr. rank"),
    # CLIPdir, with differences of normalised embeddings, as in InstructPix2Pix's metrics/clip_similarity.py (definition
    # of Gal et al. 2022, arXiv 2108.00946).
    "clip_direction": Direction(title="CLIP dir."),
    # CLIPdir from differences of raw embeddings, as the public script of the UltraEdit protocol computes it (NEP,
    # evaluations/editing/emuedit_eval.py). It weights pictures and texts by the norms of their embeddings, so its
    # numbers differ from `clip_direction`.
    "clip_direction_raw": Direction(title="CLIP dir. raw", unit=False),
    # CLIP similarity, whole, of PIE-Bench: 100 times the cosine with the target caption, at least 0.
    "clip_whole": TextSimilarity(title="CLIP whole", percent=True, needs=TARGET_CAPTION),
    # CLIP similarity, edited, of PIE-Bench: `clip_whole` of the picture that is black outside the mask.
    "clip_edited": TextSimilarity(
        title="CLIP edited", percent=True, inside_mask=True, needs=("masks", "target captions")
    ),
    # DINO of MagicBrush: cosine of DINO v1's class tokens of the edited and the target picture.
    "dino": PictureSimilarity(title="DINO", reference="target", backbone="dino", needs=TARGET_PICTURE),
    # DINO of Emu Edit: cosine of DINO v1's class tokens of the edited and the source picture.
    "dino_source": PictureSimilarity(title="DINO source", reference="source", backbone="dino"),
    # Cosine of DINOv2's class tokens of the edited and the target picture.
    "dinov2": PictureSimilarity(title="DINOv2", reference="target", backbone="dinov2", needs=TARGET_PICTURE),
    # Dino-I of FoI: cosine of DINOv2's class tokens of the edited and the source picture; FoI leaves the size open.
    "dinov2_source": PictureSimilarity(title="DINOv2 source", reference="source", backbone="dinov2"),
    # PickScore of the edited picture for the target caption, about 100 times the cosine.
    "pick_score": PickScore(title="PickScore"),
    # PSNR in dB, from the mean squared error over the pixels outside the mask.
    "background_psnr": Background(title="bg. PSNR", compare=psnr_of),
    # Structural similarity, at most 1, mean over the pixels outside the mask; tables may show it times 100.
    "background_ssim": Background(title="bg. SSIM", compare=ssim_of),
    # LPIPS, at least 0, mean of its map over the pixels outside the mask; tables often show it times 10^3.
    "background_lpips": Background(title="bg. LPIPS", compare=lpips_of, backbone="lpips", higher_is_better=False),
    # Mean squared error in [0, 1] over the pixels outside the mask; tables often show it times 10^4.
    "background_mse": Background(title="bg. MSE", compare=mse_of, higher_is_better=False),
    # PSNR in dB, PIE-Bench's variant.
    "background_psnr_pie": Background(title="bg. PSNR PIE", compare=psnr_of, pie=True),
    # Structural similarity, at most 1, PIE-Bench's variant.
    "background_ssim_pie": Background(title="bg. SSIM PIE", compare=ssim_of, pie=True),
    # LPIPS, at least 0, PIE-Bench's variant (it uses the network squeeze).
    "background_lpips_pie": Background(
        title="bg. LPIPS PIE", compare=lpips_of, pie=True, backbone="lpips", higher_is_better=False
    ),
    # Mean squared error in [0, 1], PIE-Bench's variant.
    "background_mse_pie": Background(title="bg. MSE PIE", compare=mse_of, pie=True, higher_is_better=False),
    # LC-T of CompBench: `clip_whole` of the box around the mask, with the caption of the edited objects.
    "comp_bench_text": BoxText(title="LC-T"),
    # LC-I of CompBench: `clip_image` of the box around the mask.
    "comp_bench_image": BoxPicture(title="LC-I"),
    # PSNR in dB, CompBench's variant: at 512 x 512, black inside the mask, mean over the whole picture.
    "comp_bench_psnr": SquareBackground(title="bg. PSNR 512", compare=psnr_of),
    # Structural similarity, at most 1, CompBench's variant.
    "comp_bench_ssim": SquareBackground(title="bg. SSIM 512", compare=ssim_of),
    # LPIPS, at least 0, CompBench's variant (it uses the network squeeze).
    "comp_bench_lpips": SquareBackground(
        title="bg. LPIPS 512", compare=lpips_of, backbone="lpips", higher_is_better=False
    ),
    # VIEScore's semantics, 0 to 10, from the stored answers of the judge in `vlm_judge`; NaN without a readable answer.
    "viescore_semantics": Judged(title="VIE sem.", rubric="viescore", part="semantics"),
    # VIEScore's quality, 0 to 10.
    "viescore_quality": Judged(title="VIE quality", rubric="viescore", part="quality"),
    # VIEScore's overall score, 0 to 10: the geometric mean of the two.
    "viescore": Judged(title="VIE", rubric="viescore", part="overall"),
    # The same, with 0 where an answer is missing, refused or unreadable.
    "viescore_or_zero": Judged(title="VIE or 0", rubric="viescore", part=OR_ZERO),
    # Whether an answer is missing, refused or unreadable; its mean is the share of such cases among those judged.
    "viescore_unanswered": Judged(title="VIE none", rubric="viescore", part=UNANSWERED, higher_is_better=False),
    # ImgEdit-Bench's score, 1 to 5: the mean of the judge's numbers; NaN without a readable answer.
    "imgedit": Judged(title="ImgEdit", rubric="imgedit", part="overall"),
    # The same, with 0 where the answer is missing, refused or unreadable.
    "imgedit_or_zero": Judged(title="ImgEdit or 0", rubric="imgedit", part=OR_ZERO),
    # Whether the answer is missing, refused or unreadable.
    "imgedit_unanswered": Judged(title="ImgEdit none", rubric="imgedit", part=UNANSWERED, higher_is_better=False),
    # PIE-Bench's structure distance between edited and source picture, whole pictures; at least 0, tables usually show
    # it times 10^3.
    "structure_distance": StructureDistance(title="structure"),
}
