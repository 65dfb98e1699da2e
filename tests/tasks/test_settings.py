"""What is asked for is checked before anything is loaded."""

import pytest

from foveal.errors import DataError, OptionError
from foveal.tasks.settings import Settings, split_names


@pytest.mark.parametrize(
    ("options", "kind", "told"),
    [
        ({"epochs": 0}, OptionError, r"compare: --epochs must be at least 1, got 0"),
        ({"seeds": 0}, OptionError, r"--seeds must be at least 1, got 0"),
        ({"batch_size": 1}, OptionError, r"--batch-size must be at least 2, got 1"),
        ({"lr": -1.0}, OptionError, r"--lr must be a positive number, got -1.0"),
        ({"lr": float("nan")}, OptionError, r"--lr must be a positive number, got nan"),
        ({"mechanisms": ()}, OptionError, r"--mechanisms names none. Use some of none,se,"),
        ({"mechanisms": ("none", "explcit")}, OptionError, r"no mechanism 'explcit'. Did you mean explicit"),
        ({"mechanisms": ("se", "se")}, OptionError, r"names se twice"),
        ({"sites": ("local=layer3",), "mechanisms": ("none",)}, OptionError, r"is for 'local', which is not compared"),
        ({"sites": ("local=",)}, OptionError, r"names no modules"),
        ({"weights": "/nowhere/w.pth"}, DataError, r"--weights '/nowhere/w.pth' is no file"),
    ],
)
def test_what_is_wrong_is_one_sentence(options, kind, told):
    with pytest.raises(kind, match=told):
        Settings(**options).check()


def test_sites_are_for_all_mechanisms_or_for_one():
    settings = Settings(sites=("layer2", "local=layer3.*.conv2", "local=layer1.*.conv2"))
    settings.check()
    assert settings.sites_for("se") == ["layer2"]
    assert settings.sites_for("local") == ["layer3.*.conv2", "layer1.*.conv2"]
    assert Settings().sites_for("se") is None


def test_names_come_as_text_or_as_a_list():
    assert split_names(" none, se,") == split_names(["none", "se"]) == ("none", "se")
