"""How long the explorer takes to answer a click, after the first: python benchmarks/explorer.py

ResNet-50 at 224 pixels with each mechanism, every layer asked at random points, through the server's own handlers.
"""

from __future__ import annotations

import random
import time
from statistics import median

from fastapi.testclient import TestClient

from foveal.app.server import create_app
from foveal.app.serving import reached_by
from foveal.app.shelf import Shelf

NAMES = ("local_resnet50", "efficient_resnet50_res12", "explicit_resnet50", "augmented_resnet50")
CLICKS, GOAL = 40, 0.3


def main() -> None:
    random.seed(0)
    print(f"{'model':<36}{'first':>9}{'median':>9}{'slowest':>9}   seconds; goal {GOAL} after the first")
    for name in (f"foveal_{network}" for network in NAMES):
        shelf = Shelf()
        label = shelf.load(name)
        app = create_app(shelf, hosts=reached_by("127.0.0.1", 8765), first="flower")
        client = TestClient(app, base_url="http://127.0.0.1:8765")
        image = client.post("/api/samples/flower").json()["image"]
        began = time.perf_counter()
        layers = client.get("/api/layers", params={"image": image, "model": label}).json()
        first = time.perf_counter() - began
        times = []
        for _ in range(CLICKS):
            layer = random.choice(layers)["name"]
            asked = {"image": image, "model": label, "layer": layer, "y": random.random(), "x": random.random()}
            began = time.perf_counter()
            assert client.get("/api/row", params=asked).status_code == 200
            times.append(time.perf_counter() - began)
        print(f"{name:<36}{first:>9.2f}{median(times):>9.3f}{max(times):>9.3f}")


if __name__ == "__main__":
    main()
