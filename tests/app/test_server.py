"""The explorer's server: it answers with the maps that capture gives, and refuses what a page must not send."""

import base64
import io
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image

from foveal.app import answers, uploads
from foveal.app import shelf as shelves
from foveal.app.server import create_app
from foveal.app.serving import listen, reached_by
from foveal.app.shelf import Shelf
from foveal.errors import NoMatchError, OptionError

MODEL = "foveal_efficient_resnet50_res1_early"
HOST = "127.0.0.1:8765"


@pytest.fixture(scope="module")
def shelf():
    held = Shelf()
    held.load(MODEL)
    return held


@pytest.fixture
def client(shelf):
    app = create_app(shelf, hosts=reached_by("127.0.0.1", 8765), first="flower")
    return TestClient(app, base_url=f"http://{HOST}", raise_server_exceptions=False)


def file_of(size=(40, 30), kind="PNG", mode="RGB"):
    held = io.BytesIO()
    Image.effect_noise(size, 80).convert(mode).save(held, kind)
    return held.getvalue()


def uploaded(client, **options):
    answer = client.post("/api/images", content=file_of(**options))
    assert answer.status_code == 200, answer.text
    return answer.json()["image"]


def test_a_row_is_the_one_that_capture_gives(client, shelf):
    image = uploaded(client)
    (layer,) = client.get("/api/layers", params={"image": image, "model": MODEL}).json()
    assert (layer["mechanism"], layer["size"], layer["stride"], layer["offset"]) == (
        "efficient",
        [112, 112],
        [2, 2],
        [0, 0],
    )
    told = client.get(
        "/api/row", params={"image": image, "model": MODEL, "layer": layer["name"], "y": 1, "x": 0.25}
    ).json()
    call = shelf.maps(image, MODEL)[layer["name"]]
    assert tuple(told["position"]) == call.grid.position((223, 0.25 * 223))
    wanted = call.row(told["position"])[0].numpy()
    values = np.frombuffer(base64.b64decode(told["values"]), np.uint8).reshape(wanted.shape)
    np.testing.assert_allclose(values / 255 * told["top"][0], wanted, atol=wanted.max() / 500)
    assert told["mass"] == pytest.approx([1], abs=1e-4)


def test_shared_maps_and_pictures_are_there(client):
    image = uploaded(client, mode="L")
    told = client.get("/api/shared", params={"image": image, "model": MODEL, "layer": "act1.attention"}).json()
    assert told["count"] == 64 and len(base64.b64decode(told["values"])) == 64 * 112 * 112
    picture = client.get("/api/picture", params={"image": image, "model": MODEL})
    assert Image.open(io.BytesIO(picture.content)).size == (224, 224)


def test_the_start_names_models_with_their_cost(client):
    told = client.get("/api/start").json()
    (model,) = told["models"]
    assert model["parameters"] == 25_573_672 and model["macs"] > 4e9
    assert "foveal_local_resnet50" in told["catalog"] and "foveal_se_resnet50" not in told["catalog"]


def test_the_page_asks_nothing_of_other_places(client):
    page = client.get("/")
    assert "http://" not in page.text and "https://" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]


def bomb():
    held = io.BytesIO()
    Image.new("1", (9000, 9000)).save(held, "PNG")
    return held.getvalue()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "the file is empty"),
        (b"%PDF-1.7 not an image", "the file is no image of a known format"),
        (file_of()[:60], "the image is damaged"),
        (bomb(), "the image has 9000 x 9000 pixels, at most 40 million"),
        (bytes(uploads.MOST_BYTES + 1), "the file has 20.0 MB, at most 20 MB are taken"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "the file is no image of a known format"),
    ],
)
def test_what_is_no_image_is_refused_in_a_sentence(client, shelf, body, said):
    before = dict(shelf._images)
    answer = client.post("/api/images", content=body)
    assert answer.status_code == 400 and said in answer.json()["error"]
    assert shelf._images == before


def test_a_body_that_does_not_say_its_length_is_read_no_further_than_allowed(client):
    chunks = (bytes(1_000_000) for _ in range(25))
    answer = client.post("/api/images", content=chunks)
    assert answer.status_code == 400 and "at most 20 MB" in answer.json()["error"]


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "127.0.0.1:9999"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
    ],
)
@pytest.mark.parametrize(("method", "path"), [("GET", "/api/start"), ("GET", "/"), ("POST", "/api/images")])
def test_other_origins_and_names_are_refused(client, headers, method, path):
    answer = client.request(method, path, headers=headers)
    assert answer.status_code == 403 and "are refused" in answer.json()["error"]


def test_our_own_origin_is_served(client):
    assert (
        client.get("/api/start", headers={"origin": f"http://{HOST}", "sec-fetch-site": "same-origin"}).status_code
        == 200
    )


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../../secret.safetensors", "runs/demo/runs/local-0", "os:system", "resnet18", "a=resnet18", ""],
)
def test_a_client_can_name_networks_of_the_catalogue_alone(client, shelf, name, monkeypatch):
    for way in ("shown", "drawn"):
        monkeypatch.setattr(shelves, way, lambda text: pytest.fail("a client's text was opened"))
    answer = client.post("/api/models", content=name)
    assert answer.status_code == 404 and "is no network of foveal" in answer.json()["error"]


def test_samples_are_named_not_opened(client):
    assert client.post("/api/samples/..%2f..%2fetc%2fpasswd").status_code == 404
    assert client.post("/api/samples/china").json() == {"image": "china"}


def test_what_lies_beside_under_the_name_of_a_sample_or_network_is_not_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digit-3").write_text("no image")
    (tmp_path / "foveal_eamlp_7").mkdir()
    shelf = Shelf()
    other = TestClient(create_app(shelf, hosts=(HOST,), first="flower"), base_url=f"http://{HOST}")
    assert other.post("/api/samples/digit-3").json() == {"image": "digit-3"}
    assert other.post("/api/models", content="foveal_eamlp_7").json()["label"] == "foveal_eamlp_7"


@pytest.mark.parametrize(
    ("given", "status", "said"),
    [
        ({"image": "nothing"}, 410, "the image is not here any more. Load it again."),
        ({"model": "x"}, 404, "there is no model 'x' here"),
        ({"layer": "x"}, 404, "capture: of 'x' nothing was captured"),
        ({"y": "up"}, 400, "query.y is wrong"),
        ({"y": "nan"}, 400, "y and x must be numbers from 0 to 1"),
        ({"radius": "0.3"}, 400, "efficient attention has no radius"),
        ({"radius": "nan"}, 400, "a radius must be a number above 0, got nan"),
        ({"radius": "inf"}, 400, "a radius must be a number above 0, got inf"),
    ],
)
def test_wrong_questions_get_a_sentence(client, given, status, said):
    image = uploaded(client)
    asked = {"image": image, "model": MODEL, "layer": "act1.attention", "y": 0.5, "x": 0.5, **given}
    answer = client.get("/api/row", params=asked)
    assert answer.status_code == status and said in answer.json()["error"]


def test_old_images_make_room_for_new_ones(shelf, monkeypatch):
    monkeypatch.setattr(shelves, "MOST_IMAGES", 2)
    first, second, third = (shelf.add(Image.new("RGB", (4, 4))) for _ in range(3))
    assert first not in shelf._images and {second, third} <= set(shelf._images)
    monkeypatch.setattr(shelves, "MOST_PIXELS", 100)
    large = shelf.add(Image.new("RGB", (9, 9)))
    assert list(shelf._images) == [third, large]


def test_twenty_clients_at_once_are_served(client):
    image = uploaded(client)
    barrier = threading.Barrier(20)

    def ask(n):
        barrier.wait()
        given = {"image": image, "model": MODEL, "layer": "act1.attention", "y": n / 20, "x": 0.5}
        return client.get("/api/row", params=given).json()["position"][0]

    with ThreadPoolExecutor(20) as pool:
        rows = list(pool.map(ask, range(20)))
    assert rows == sorted(rows) and len(set(rows)) == 20


def test_a_model_that_is_loaded_while_others_are_counted_stops_nothing(client, shelf, monkeypatch):
    count = answers.model_told

    def loaded_meanwhile(held, label):
        monkeypatch.setitem(held.models, "another", held.models[MODEL])
        return count(held, label)

    monkeypatch.setattr(answers, "model_told", loaded_meanwhile)
    assert client.get("/api/start").status_code == 200


def test_images_are_decoded_one_at_a_time(monkeypatch):
    busy, most = [], []

    def decode(image):
        busy.append(image)
        most.append(len(busy))
        time.sleep(0.01)
        busy.remove(image)
        return image

    monkeypatch.setattr(uploads, "rgb", decode)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(uploads.opened, [file_of()] * 4))
    assert most == [1] * 4


def test_a_machine_that_does_not_know_its_own_name_still_serves(monkeypatch):
    def unknown(name):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "gethostbyname_ex", unknown)
    assert f"{socket.gethostname()}:8765" in reached_by("0.0.0.0", 8765)


def test_a_model_without_attention_and_one_too_many_are_refused(monkeypatch):
    shelf = Shelf()
    with pytest.raises(NoMatchError, match="The model has none"):
        shelf.load("resnet18")
    monkeypatch.setattr(shelves, "MOST_MODELS", 0)
    with pytest.raises(OptionError, match="0 models are loaded, no more fit"):
        shelf.load(MODEL)


def test_two_models_of_one_name_are_told_apart():
    shelf = Shelf()
    assert [shelf.load("foveal_resnet_x=foveal_eamlp_7") for _ in range(2)] == ["foveal_resnet_x", "foveal_resnet_x 2"]


def test_a_port_that_is_taken_is_said():
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(OptionError, match=rf"127.0.0.1:{port} cannot be listened on: .*Use --port 0"):
            listen("127.0.0.1", port)


def test_the_radius_of_explicit_attention_moves_its_map():
    shelf = Shelf()
    label = shelf.load("foveal_explicit_resnet50")
    image = shelf.add(Image.new("RGB", (64, 64)))
    near, far = (shelf.look(image, label, "layer2.0.conv2.attention", (0.5, 0.5), radius).row for radius in (0.05, 1.5))
    assert near.max() > 1.5 * far.max()
    torch.testing.assert_close(near.sum((1, 2)), torch.ones(8))
