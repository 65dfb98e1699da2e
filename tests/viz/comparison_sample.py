"""A made-up comparison of ten mechanisms, shaped like ``results.json`` and the looks beside it."""

from __future__ import annotations

from typing import Any

import numpy as np

# accuracy of two seeds, parameters, MACs, inference ratio, training ratio, memory of both in MiB, sites
_FIGURES: dict[str, tuple[tuple[float, float], int, int, float, float, float, float, int]] = {
    "none": ((0.9722, 0.9778), 77_754, 4_310_000, 1.0, 1.0, 2.1, 9.4, 0),
    "se": ((0.9750, 0.9806), 79_998, 4_320_000, 1.11, 1.08, 2.1, 9.8, 6),
    "eca": ((0.9722, 0.9806), 77_772, 4_315_000, 1.09, 1.06, 2.1, 9.7, 6),
    "cbam": ((0.9694, 0.9750), 80_600, 4_520_000, 1.62, 1.55, 2.4, 12.9, 6),
    "nonlocal": ((0.9778, 0.9833), 98_490, 5_720_000, 1.31, 1.34, 3.0, 14.2, 2),
    "augmented": ((0.9833, 0.9806), 71_100, 4_010_000, 2.74, 2.61, 5.9, 28.4, 6),
    "local": ((0.9389, 0.9472), 49_310, 2_610_000, 1.94, 2.23, 2.9, 13.3, 6),
    "efficient": ((0.9806, 0.9861), 96_400, 5_280_000, 1.24, 1.29, 2.6, 12.2, 2),
    "external": ((0.9750, 0.9778), 94_900, 5_120_000, 1.22, 1.27, 2.7, 11.9, 2),
    "explicit": ((0.9944, 0.9972), 75_400, 4_180_000, 1.17, 1.19, 2.2, 10.6, 6),
}


def timing(base: float, ratio: float) -> dict[str, float]:
    middle = base * ratio
    return {
        "median": middle,
        "q1": middle * 0.97,
        "q3": middle * 1.05,
        "ratio": ratio,
        "ratio_q1": ratio * 0.98,
        "ratio_q3": ratio * 1.03,
        "rounds": 30,
        "repeats": 1,
    }


def record(name: str, seed: int) -> dict[str, Any]:
    accuracy, parameters, macs, inference, training, small, large, sites = _FIGURES[name]
    return {
        "mechanism": name,
        "seed": seed,
        "status": "done",
        "reason": None,
        "accuracy": accuracy[seed],
        "best_accuracy": accuracy[seed] + 0.002,
        "loss": 0.1,
        "parameters": parameters,
        "macs": macs,
        "inference_ms": timing(6.2, inference),
        "training_ms": timing(21.7, training),
        "inference_peak_bytes": int(small * 2**20),
        "training_peak_bytes": int(large * 2**20),
        "train_seconds": 14.0 * training,
        "sites": [f"layer{1 + i // 2}.{i % 2}.conv2" for i in range(sites)],
    }


def results(mechanisms: tuple[str, ...] = tuple(_FIGURES), seeds: int = 2) -> dict[str, Any]:
    return {
        "schema": 1,
        "data": {"name": "digits", "train": 1440, "val": 357, "skipped": []},
        "mechanisms": {
            name: {"title": f"title of {name}", "paper": "Someone 2020", "where": "somewhere"} for name in mechanisms
        },
        "config": {
            "data": "digits",
            "backbone": "resnet-small",
            "mechanisms": list(mechanisms),
            "epochs": 12,
            "seeds": seeds,
            "batch": 64,
        },
        "environment": {
            "versions": {"torch": "2.15.0", "timm": "1.0.31", "foveal": "0.1.0"},
            "python": "3.11.7",
            "cpu": "Some CPU @ 2.60 GHz",
            "threads": 2,
            "commit": "802eb95",
        },
        "command": "foveal compare --data digits --epochs 12 --seeds 2 --out runs/demo",
        "records": [record(name, seed) for name in mechanisms for seed in range(seeds)],
    }


def failed(name: str, seed: int, reason: str) -> dict[str, Any]:
    return {"mechanism": name, "seed": seed, "status": "failed", "reason": reason}


def blob(shape: tuple[int, int], centre: tuple[float, float], width: float) -> np.ndarray:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return np.exp(-((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2) / (2 * width**2))


def looks(mechanisms: tuple[str, ...] = tuple(_FIGURES)) -> list[dict[str, Any]]:
    random = np.random.default_rng(0)
    made = []
    for label, point in (("3", (9, 20)), ("8", (16, 16)), ("1", (24, 14))):
        image = np.clip(
            blob((32, 32), (10, 16), 4) + blob((32, 32), (21, 16), 4.5) - 0.9 * blob((32, 32), (15, 10), 3), 0, 1
        )
        maps = {}
        for name in mechanisms:
            gate = name in ("none", "se", "eca", "cbam")
            width = {"local": 1.2, "explicit": 3.0, "efficient": 30.0}.get(name, 2.2)
            attention = (
                None if gate else blob((16, 16), (point[0] / 2, point[1] / 2), width) + 0.1 * random.random((16, 16))
            )
            evidence = np.clip(blob((8, 8), (3, 4), 1.8) + 0.3 * random.standard_normal((8, 8)), 0, None)
            where = "" if gate else "layer2.1.conv2"
            predicted = "5" if name == "local" and label == "3" else label
            maps[name] = {"attention": attention, "evidence": evidence, "predicted": predicted, "where": where}
        made.append({"image": image, "label": label, "point": point, "maps": maps})
    return made
