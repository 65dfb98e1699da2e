"""foveal predict: JSON and nothing else on standard output, a line for every file, in order, whatever the files are."""

import errno
import itertools
import json
import shutil
import subprocess
import sys

import pytest
from PIL import Image

from foveal.cli import main
from foveal.errors import OptionError
from foveal.tasks.predict import found, predict
from foveal.tasks.trained import open_run
from tests.tasks.trained_sample import digit_files, trained


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "digits"
    trained(folder)
    return folder


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    digit_files(folder)
    return folder


def lines(capsys, *words):
    status = main(["predict", *map(str, words)])
    shown = capsys.readouterr()
    return status, [json.loads(line) for line in shown.out.splitlines()], shown.err


def test_every_image_of_a_folder_has_a_line_in_order(run, digits, capsys):
    status, told, err = lines(capsys, run, digits / "3", digits / "1", "--top", 2)
    assert status == 0 and err == ""
    assert [line["image"] for line in told] == [str(path) for n in "31" for path in sorted((digits / n).iterdir())]
    opened = open_run(run)
    for line in told[:40]:
        ((first, second),) = opened.predict([line["image"]], top=2)
        assert [entry["class"] for entry in line["top"]] == [first[0], second[0]]
        shares = [entry["probability"] for entry in line["top"]]
        assert shares == pytest.approx([first[1], second[1]], rel=1e-4)


def test_names_stand_for_files_folders_at_any_depth_and_patterns(tmp_path):
    for name in ("a.png", "b/c.JPG", "b/d/e.webp", "b/.hidden.png", ".trash/f.png", "b/readme.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "none").mkdir()
    names = [
        tmp_path / "b",
        tmp_path / "**" / "*.png",
        tmp_path / "b" / "readme.txt",
        tmp_path / "none",
        "gone.png",
        "x*",
    ]
    told = [(one.image, one.error) for one in found(map(str, names))]
    assert [(name.removeprefix(f"{tmp_path}/"), error is None) for name, error in told] == [
        ("b/c.JPG", True), ("b/d/e.webp", True), ("a.png", True), ("b/readme.txt", True),
        ("none", False), ("gone.png", False), ("x*", False),
    ]  # fmt: skip
    assert "holds no images" in told[4][1]
    assert [error for _, error in told[5:]] == ["there is no such file", "no file has such a name"]


def test_files_that_cannot_be_read_have_a_line_with_the_reason_and_the_others_go_on(run, digits, tmp_path, capsys):
    good = sorted((digits / "0").iterdir())[0]
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:-40])
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "nowhere.png")
    status, told, err = lines(capsys, run, good, tmp_path, "gone.png", good)
    assert status == 2
    assert err == (
        "DataError: predict: 6 of 8 images could not be read; each has a line with its error. Give whole image files.\n"
    )
    assert [sorted(line) for line in told] == [["image", "top"], *[["error", "image"]] * 6, ["image", "top"]]
    errors = {line["image"].rpartition("/")[2]: line["error"] for line in told if "error" in line}
    assert list(errors) == ["bomb.png", "cut.png", "empty.png", "link.png", "text.png", "gone.png"]
    assert errors["empty.png"] == "the file is empty"
    assert errors["gone.png"] == errors["link.png"] == "there is no such file"
    assert "pixels" in errors["bomb.png"] and "no image format" in errors["text.png"]
    assert told[0] == told[-1]


def test_a_file_that_cannot_be_opened_has_a_line_too(run, digits, tmp_path, capsys, monkeypatch):
    good, own = sorted((digits / "0").iterdir())[0], Image.open

    def refuses(source, *rest):
        if str(source).endswith("locked.png"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return own(source, *rest)

    shutil.copy(good, tmp_path / "locked.png")
    monkeypatch.setattr(Image, "open", refuses)
    status, told, _ = lines(capsys, run, tmp_path / "locked.png", good)
    assert status == 2 and "cannot be opened: Permission denied" in told[0]["error"]
    assert told[1]["top"]


def test_any_batch_size_gives_the_same_lines(run, digits, tmp_path, capsys):
    files = sorted((digits / "5").iterdir())[:7]
    whole = lines(capsys, run, *files)[1]
    for size in (1, 3):
        parts = lines(capsys, run, *files, "--batch-size", size)[1]
        for one, other in zip(whole, parts, strict=True):
            assert [entry["class"] for entry in one["top"]] == [entry["class"] for entry in other["top"]]
            shares = [[entry["probability"] for entry in line["top"]] for line in (one, other)]
            assert shares[0] == pytest.approx(shares[1], abs=1e-4)


def test_answers_come_before_the_last_file_is_known(run, digits):
    endless = itertools.repeat(str(sorted((digits / "7").iterdir())[0]))
    told = list(itertools.islice(predict(open_run(run), endless, batch_size=4), 50))
    assert len({one.top[0][0] for one in told}) == 1


def test_a_sheet_shows_where_the_marked_point_looks(run, digits, tmp_path, capsys):
    path = tmp_path / "sheet.html"
    status, told, err = lines(capsys, run, digits / "2", "--sheet", path)
    assert status == 0 and err == f"Written: {path}\n"
    text = path.read_text()
    assert text.count('<figure class="answer">') == len(told)
    assert "head-averaged weights of layer2.0.conv2" in text
    assert text.count('<i class="point"') == 2 * len(told)
    assert "foveal_resnet_mini with local" in text and "last, epoch 2" in text
    lines(capsys, run, digits / "2", "--sheet", path, "--attention", "none")
    assert '<i class="point"' not in path.read_text()


def test_the_centre_can_look_too(run, digits):
    (one,) = predict(open_run(run), [str(sorted((digits / "2").iterdir())[0])], looking="centre")
    assert one.point == (4, 4)
    assert one.attention.shape == (8, 8)
    assert one.attention.sum() > 0 and one.attention[0, 0] == 0  # a window of 7 x 7 around the centre


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], r"OptionError: predict: no images are named"),
        (["x.png", "--attention", "centre"], r"OptionError: predict: --attention centre is drawn on a sheet"),
        (["x.png", "--sheet", "s.pdf"], r"OptionError: predict: --sheet must end in .html, got 's.pdf'"),
        (["x.png", "--sheet", "/no/where/s.html"], r"DataError: foveal: --sheet '/no/where/s.html' lies in a folder"),
        (["x.png", "--top", "0"], r"OptionError: predict: --top must be at least 1, got 0"),
        (["x.png", "--batch-size", "0"], r"OptionError: predict: --batch-size must be at least 1, got 0"),
    ],
)
def test_what_is_wrong_is_one_sentence(run, capsys, words, told):
    status, out, err = lines(capsys, run, *words)
    assert (status, out) == (2, []) and err.startswith(told) and err.count("\n") == 1


def test_attention_of_a_model_without_is_refused(run):
    opened = open_run(run)
    object.__setattr__(opened, "model", opened.model.bn1)
    with pytest.raises(OptionError, match="needs a model with an attention layer"):
        predict(opened, [], looking="marked")


def test_the_command_stops_in_silence_with_its_reader(run, digits):
    command = f"{sys.executable} -m foveal predict {run} {digits} {digits} | head -2"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert len([json.loads(line) for line in done.stdout.splitlines()]) == 2
    assert done.stderr == ""


def test_a_damaged_checkpoint_is_passed_over_aloud(run, digits, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "run")
    checkpoints = tmp_path / "run" / "checkpoints"
    if not (checkpoints / "before").exists():
        shutil.copytree(checkpoints / "last", checkpoints / "before")
    with (checkpoints / "last" / "model.average.safetensors").open("r+b") as file:
        file.write(b"damage")
    status, told, err = lines(capsys, tmp_path / "run", digits / "4")
    assert status == 0 and "top" in told[0]
    assert err.startswith("warning: ") and "model.average.safetensors does not match its checksum" in err
    assert f"{checkpoints / 'before'} is used instead." in err and err.count("\n") == 1


def test_a_run_can_be_carried_elsewhere(run, digits, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "elsewhere")
    one = sorted((digits / "4").iterdir())[0]
    assert lines(capsys, tmp_path / "elsewhere", one)[1] == lines(capsys, run, one)[1]
