"""What is counted of label maps, and the scores of an image by scales, mirrors and windows, against plain formulas."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import confusion_matrix
from torch import nn

from foveal.errors import DataError
from foveal.tasks.segmentation.confusion import Confusion
from foveal.tasks.segmentation.recipe import SegmentationEvaluation
from foveal.tasks.segmentation.scoring import scores, starts

# Counts ----------------------------------------------------------------------------------------------------------


def drawn(seed, classes, shape=(7, 11)):
    chance = np.random.default_rng(seed)
    truth, answers = chance.integers(0, classes, (2, *shape))
    truth[chance.random(shape) < 0.2] = 255
    return truth, answers


def test_counts_of_many_images_are_scikit_learns_of_all_their_pixels():
    pairs = [drawn(seed, 5) for seed in range(4)]
    confusion = Confusion(5)
    for truth, answers in pairs:
        confusion.add(torch.from_numpy(truth.astype(np.uint8)), torch.from_numpy(answers))
    truth, answers = (np.concatenate([pair[n].ravel() for pair in pairs]) for n in (0, 1))
    kept = truth != 255
    np.testing.assert_array_equal(confusion.counts.numpy(), confusion_matrix(truth[kept], answers[kept]))


@pytest.mark.parametrize(
    ("truth", "answers"),
    [
        ([0, 0, 1, 255], [0, 1, 1, 3]),  # 2 and 3 are nowhere; what is given to an ignored pixel does not count
        ([0, 0, 0, 0], [2, 2, 2, 2]),  # 2 is given and not there
        ([3, 3, 255, 255], [3, 3, 0, 1]),
        ([0, 1, 2, 3], [1, 2, 3, 0]),
    ],
)
def test_iou_is_intersection_over_union_of_the_classes_that_are_there_or_given(truth, answers):
    confusion = Confusion(4)
    confusion.add(torch.tensor(truth, dtype=torch.uint8), torch.tensor(answers))
    pairs = [(t, a) for t, a in zip(truth, answers, strict=True) if t != 255]
    ious, recalls = [], []
    for number in range(4):
        has, gets = ({n for n, pair in enumerate(pairs) if pair[side] == number} for side in (0, 1))
        if has | gets:
            ious.append(len(has & gets) / len(has | gets))
        if has:
            recalls.append(len(has & gets) / len(has))
    told = confusion.metrics()
    assert told["miou"] == pytest.approx(sum(ious) / len(ious), abs=1e-15)
    assert told["class_accuracy"] == pytest.approx(sum(recalls) / len(recalls), abs=1e-15)
    assert told["pixel_accuracy"] == sum(t == a for t, a in pairs) / len(pairs)


def test_counts_stay_exact_where_floats_would_not():
    confusion = Confusion(2)
    confusion.counts += 2**60
    confusion.add(torch.tensor([0, 1, 1], dtype=torch.uint8), torch.tensor([0, 0, 1]))
    assert (confusion.counts - 2**60).tolist() == [[1, 0], [1, 1]]


def test_labels_that_never_count_are_told():
    with pytest.raises(DataError, match="^evaluate: every label of the validation images is 255"):
        Confusion(3).metrics()


def test_by_class_says_what_a_class_is_taken_for_and_leaves_out_what_is_not_there():
    confusion = Confusion(3)
    confusion.add(torch.tensor([0, 0, 0, 1], dtype=torch.uint8), torch.tensor([0, 1, 1, 1]))
    first, second, third = confusion.by_class(("sky", "sea", "land"))
    assert first == {"class": "sky", "iou": 1 / 3, "accuracy": 1 / 3, "pixels": 3,
                     "taken_for": "sea", "taken_share": 2 / 3}  # fmt: skip
    assert (second["iou"], second["accuracy"], second["taken_for"]) == (1 / 3, 1.0, None)
    assert (third["iou"], third["accuracy"], third["pixels"]) == (None, None, 0)


# Scores ----------------------------------------------------------------------------------------------------------


class Local(nn.Module):
    """Scores of a pixel from its neighbours alone, at full size, so that windows and padding are seen at borders."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.conv = nn.Conv2d(3, 4, 5, padding=2)
        self.sizes = []

    def forward(self, x):
        self.sizes.append(tuple(x.shape[2:]))
        return 4 * self.conv(x)


def asked(network, image, **options):
    with torch.no_grad():
        return scores(network, image, SegmentationEvaluation(**options), crop=(17, 17), stride=8)


def picture(rows, columns):
    torch.manual_seed(2)
    return torch.randn(3, rows, columns)


def plain(network, image, crop=17, stride=8):
    """Probabilities of one image: padded to what training had, and cut."""
    rows, columns = image.shape[1:]
    high, wide = (math.ceil((side - crop) / stride) * stride + crop for side in (rows, columns))
    padded = torch.zeros(1, 3, high, wide)
    padded[0, :, :rows, :columns] = image
    with torch.no_grad():
        return network(padded).softmax(1)[0, :, :rows, :columns]


@pytest.mark.parametrize("size", [(17, 17), (25, 33), (20, 41), (3, 5)])
def test_an_image_is_padded_to_the_crop_and_whole_strides_and_cut_again(size):
    network, image = Local(), picture(*size)
    told = asked(network, image)
    (padded,) = network.sizes
    assert all((side - 17) % 8 == 0 and 0 <= side - own < 8 for side, own in zip(padded, size, strict=True))
    torch.testing.assert_close(told, plain(Local(), image))


@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_scales_and_mirrors_are_the_mean_of_their_scores(average):
    network, image = Local(), picture(25, 33)
    told = asked(network, image, scales=(0.75, 1.0, 1.5), flip=True, average=average)

    def once(x):
        high, wide = (math.ceil((side - 17) / 8) * 8 + 17 for side in x.shape[2:])
        with torch.no_grad():
            logits = network(F.pad(x, (0, wide - x.shape[3], 0, high - x.shape[2])))[..., : x.shape[2], : x.shape[3]]
        return logits.softmax(1) if average == "probabilities" else logits

    total = torch.zeros(4, 25, 33)
    for size in ((19, 25), (25, 33), (38, 50)):
        kept = {"mode": "bilinear", "align_corners": False, "antialias": True}
        scaled = image[None] if size == (25, 33) else F.interpolate(image[None], size, **kept)
        for mirrored in (once(scaled), once(scaled.flip(3)).flip(3)):
            total += mirrored[0] if size == (25, 33) else F.interpolate(mirrored, (25, 33), **kept)[0]
    torch.testing.assert_close(told, total / 6)


def test_windows_cover_an_image_and_their_scores_are_averaged():
    network, image = Local(), picture(40, 23)
    told = asked(network, image, window=(17, 17), stride=0.5)
    total, seen = torch.zeros(4, 40, 23), torch.zeros(40, 23)
    for top in (0, 8, 16, 23):
        for left in (0, 6):
            total[:, top : top + 17, left : left + 17] += plain(network, image[:, top : top + 17, left : left + 17])
            seen[top : top + 17, left : left + 17] += 1
    assert (seen > 0).all()
    torch.testing.assert_close(told, total / seen)
    torch.testing.assert_close(asked(network, image, window=(40, 40)), plain(network, image))


@pytest.mark.parametrize(("side", "window"), [(1, 4), (4, 4), (5, 4), (100, 7), (64, 33)])
def test_windows_begin_within_the_image_and_end_with_it(side, window):
    found = starts(side, window, 2 / 3)
    assert found[0] == 0 and found[-1] == max(side - window, 0)
    assert all(0 < b - a <= max(1, window * 2 // 3) for a, b in pairwise(found))
