"""What training does to an image is done to its objects too."""

from dataclasses import replace

import pytest
import torch
from torchvision.models.detection.transform import resize_boxes

from data.detection_miniatures import coco, load
from foveal.data.detection.changes import Change, mirrored, resized, window
from foveal.data.detection.coco import LEAST_EXTENT

pytest.importorskip("pycocotools")


def item():
    """An image whose objects are blocks of their own colour."""
    image = torch.zeros(3, 30, 40, dtype=torch.uint8)
    masks = torch.zeros(2, 30, 40, dtype=torch.uint8)
    boxes = torch.tensor([[2.0, 3.0, 12.0, 9.0], [20.0, 10.0, 38.0, 28.0]])
    for n, (left, top, right, bottom) in enumerate(boxes.int().tolist()):
        masks[n, top:bottom, left:right] = 1
        image[n, top:bottom, left:right] = 200
    return image, {"boxes": boxes, "labels": torch.tensor([1, 2]), "masks": masks}


def around(mask):
    rows, columns = mask.nonzero(as_tuple=True)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_boxes_and_masks_follow_a_mirrored_image():
    image, target = mirrored(*item())
    for n, mask in enumerate(target["masks"]):
        assert target["boxes"][n].tolist() == around(mask)
        assert torch.equal(image[n] > 100, mask.bool())


@pytest.mark.parametrize("width", [700, 9_000, 30_000, 65_000])
def test_the_narrowest_box_that_is_learned_keeps_an_extent(width):
    left = torch.linspace(0.1, width - 1, 2000, dtype=torch.float64)
    sides = torch.stack([left, torch.zeros_like(left), left + LEAST_EXTENT, torch.ones_like(left)], 1).float()
    image = torch.zeros(1, 1, 1).expand(3, 1, width)
    _, target = mirrored(image, {"boxes": sides})
    for boxes in (sides, target["boxes"]):
        shown = resize_boxes(boxes, [width, width], [800, 800])
        assert (shown[:, 2] > shown[:, 0]).all()


@pytest.mark.parametrize("factor", [0.5, 1.7, 3.0])
def test_boxes_and_masks_follow_a_resized_image(factor):
    image, target = resized(*item(), factor)
    for n, mask in enumerate(target["masks"]):
        assert image.shape[1:] == mask.shape
        torch.testing.assert_close(target["boxes"][n], torch.tensor(around(mask)).float(), atol=1.0, rtol=0)
        assert ((image[n] > 100) != mask.bool()).float().mean() < 0.03


@pytest.mark.parametrize(("down", "right"), [(0.0, 0.0), (0.99, 0.99), (0.5, 0.2)])
@pytest.mark.parametrize("side", [16, 25, 64])
def test_a_window_keeps_what_lies_in_it_and_pads_with_the_mean(side, down, right):
    image, target = window(*item(), side, down, right)
    assert image.shape == (3, side, side)
    assert len(target["boxes"]) == len(target["masks"]) == len(target["labels"])
    for box, mask, label in zip(target["boxes"], target["masks"], target["labels"].tolist(), strict=True):
        assert box.tolist() == around(mask)
        assert torch.equal(mask.bool(), image[label - 1] == 200)
    if side == 64:
        assert len(target["boxes"]) == 2
        assert image[:, 40, 10].tolist() == [124, 116, 104]


def test_what_is_drawn_follows_from_seed_epoch_and_index(tmp_path):
    whole = coco(tmp_path / "coco")

    def read(order, seed, epoch):
        data = load(whole, flip=0.5, crop=32, jitter=(0.5, 2.0)).train
        data.at(seed, epoch)
        return {n: data.item(n) for n in order}

    one, other = read([0, 1, 2], 3, 4), read([2, 0, 1], 3, 4)
    assert all(torch.equal(one[n][0], other[n][0]) for n in one)
    assert all(torch.equal(one[n][1]["boxes"], other[n][1]["boxes"]) for n in one)
    assert any(not torch.equal(one[n][0], read([n], 3, 5)[n][0]) for n in one)
    assert all(image.shape == (3, 32, 32) for image, _ in one.values())


def test_an_image_can_lose_all_its_objects_to_a_window():
    image, target = item()
    change = Change(crop=8, jitter=(5.0, 5.0))
    drawn = [change(image, target, torch.Generator().manual_seed(n))[1] for n in range(40)]
    assert any(len(each["boxes"]) == 0 for each in drawn) and any(len(each["boxes"]) for each in drawn)
    assert all(each["masks"].shape == (len(each["boxes"]), 8, 8) for each in drawn)


def test_flips_come_as_often_as_asked():
    image, target = item()
    for share in (0.0, 0.3, 1.0):
        change = replace(Change(), flip=share)
        drawn = [change(image, target, torch.Generator().manual_seed(n))[0] for n in range(200)]
        flipped = sum(torch.equal(each, image.flip(2)) for each in drawn) / 200
        assert flipped == pytest.approx(share, abs=0.1)
