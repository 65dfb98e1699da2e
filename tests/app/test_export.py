"""An exported page: one file that holds what it shows, and rows of queries as capture gives them."""

import base64
import json
import re

import numpy as np
import pytest
from PIL import Image

from foveal.app import export as exporting
from foveal.app.export import embedded, export
from foveal.app.shelf import Shelf
from foveal.cli import main
from foveal.errors import NoMatchError

MODEL = "foveal_efficient_resnet50_res2"
LAYER = "layer2.attention"


@pytest.fixture(scope="module")
def shelf():
    held = Shelf()
    held.load(MODEL)
    held.add(Image.effect_noise((90, 70), 60).convert("RGB"), "noise")
    return held


def told(path):
    return json.loads(re.search(r"const EMBEDDED = (.*);\n", path.read_text()).group(1).replace("<\\/", "</"))


def test_the_page_holds_the_rows_of_its_layer(shelf, tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    monkeypatch.setattr(exporting, "MOST_BYTES", 200_000)
    assert export(shelf, "noise", path) == path.stat().st_size
    (layer,) = told(path)["layers"][MODEL]
    assert layer["rows"]["step"] == 2 and layer["rows"]["queries"] == [14, 14]
    values = np.frombuffer(base64.b64decode(layer["rows"]["values"]), np.uint8).reshape(14, 14, 1, 28, 28)
    wanted = shelf.maps("noise", MODEL)[LAYER].row((6, 20))[0].numpy()
    np.testing.assert_allclose(values[3, 10] / 255 * layer["rows"]["top"][3 * 14 + 10], wanted, atol=wanted.max() / 500)
    assert len(layer["kept"][0]["top"]) == 64
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]


def test_large_layers_keep_every_few_queries(shelf, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "MOST_BYTES", 100_000)
    export(shelf, "noise", tmp_path / "page.html", layer="layer2")
    (layer,) = told(tmp_path / "page.html")["layers"][MODEL]
    assert layer["rows"]["step"] == 3 and layer["rows"]["queries"] == [10, 10]
    assert len(base64.b64decode(layer["rows"]["values"])) == 100 * 784 <= 100_000


def test_a_pattern_that_means_no_layer_is_an_error(shelf, tmp_path):
    with pytest.raises(NoMatchError, match="--layer 'head' means 0 layers"):
        export(shelf, "noise", tmp_path / "page.html", layer="head")
    assert not list(tmp_path.iterdir())


def test_no_name_ends_the_script():
    assert "</script>" not in embedded({"name": "</script><script>alert(1)</script><!--"})
    assert json.loads(embedded({"name": "</b>"}).replace("<\\/", "</")) == {"name": "</b>"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--export", "page.txt"], "--export must end in .html, got 'page.txt'"),
        (["--export", "no/such/page.html"], "lies in a folder that does not exist"),
        (["--port", "70000"], "--port must be 0 to 65535, got 70000"),
        (["--image", "none.jpg"], "there is no image 'none.jpg'"),
        (["--model", "nothing"], "there is no run and no model 'nothing'"),
    ],
)
def test_wrong_options_are_said_before_anything_is_loaded(words, said, capsys):
    assert main(["explore", "--no-browser", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.strip().count("\n") == 0
