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
        (
            {"sites": ("none=layer3",)},
            OptionError,
            r"^compare: --sites 'none=layer3' is for 'none', which has no sites",
        ),
        ({"sites": ("x=local=layer3",)}, OptionError, r"--sites 'x=local=layer3' is for 'x', which is not compared"),
        (
            {"epochs": 100_001},
            OptionError,
            r"^compare: --epochs must be at most 100000, got 100001. Use 100000 or less",
        ),
        ({"seeds": 1001}, OptionError, r"^compare: --seeds must be at most 1000, got 1001. Use 1000 or less"),
        ({"batch_size": 65_537}, OptionError, r"^compare: --batch-size must be at most 65536, got 65537"),
        ({"size": 4097}, OptionError, r"^compare: --size must be at most 4096, got 4097. Use 4096 or less"),
        ({"size": 7}, OptionError, r"^compare: --size must be at least 8, got 7"),
        ({"data": " "}, OptionError, r"^compare: --data is empty. Use digits, digit-pairs or the path of a folder"),
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


def test_the_first_equals_sign_ends_the_name_wherever_sites_are_read():
    settings = Settings(sites=("local=a=b",))
    settings.check()
    assert settings.sites_for("local") == ["a=b"]
    assert settings.sites_for("se") is None


def test_names_come_as_text_or_as_a_list():
    assert split_names(" none, se,") == split_names(["none", "se"]) == ("none", "se")
