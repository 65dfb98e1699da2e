"""Detectors so narrow that they learn in a moment, and their recipes on a miniature of COCO."""

import torch

from foveal.data.detection.options import DetectionData
from foveal.tasks.detection.kind import KIND
from foveal.tasks.detection.recipe import DetectionModel, DetectionRecipe
from foveal.tasks.recipe import OptimizerOptions

NARROW = {
    "backbone": "resnet10t", "backbone_options": {"channels": [8, 8, 16, 16], "stem_width": 8},
    "pyramid_channels": 16, "anchor_sizes": [8, 16, 24, 32, 48], "min_size": 48, "max_size": 64,
}  # fmt: skip
FEW = {
    "rpn_pre_nms_top_n_train": 40, "rpn_post_nms_top_n_train": 20, "rpn_pre_nms_top_n_test": 40,
    "rpn_post_nms_top_n_test": 10, "box_batch_size_per_image": 16, "box_channels": 16, "box_score_thresh": 0.0,
}  # fmt: skip
MODELS = {
    "mask_rcnn": {**NARROW, **FEW, "mask_channels": 8, "attention": "efficient", "sites": ["res4", "fpn2"]},
    "faster_rcnn": {**NARROW, **FEW},
    "retinanet": {**NARROW, "score_thresh": 0.0, "detections_per_img": 10},
}


def small(folder, name="mask_rcnn", **options):
    return DetectionRecipe(
        data=DetectionData(name="coco", path=str(folder), empty=True, workers=0),
        model=DetectionModel(name, MODELS[name]),
        optimizer=OptimizerOptions("sgd", 0.01),
        **{"epochs": 2, "batch_size": 2, "seed": 1, **options},
    )


def task_of(recipe):
    task = KIND.task(recipe, KIND.load(recipe))
    torch.manual_seed(0)
    task.build()
    return task
