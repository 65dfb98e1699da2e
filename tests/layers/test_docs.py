"""Every mechanism has its page, and the page names every argument."""

import inspect
from pathlib import Path

import pytest

from foveal.layers.registry import REGISTRY

PAGES = Path(__file__).parents[2] / "docs" / "mechanisms"
PAGE = {
    "local_stem": "local",
    "multi_head_external": "external",
    "augmented": "dot_product",
    "non_local": "dot_product",
}


@pytest.mark.parametrize("row", REGISTRY, ids=lambda r: r.name)
def test_the_page_of_a_mechanism_names_every_argument_of_its_layer(row):
    text = (PAGES / f"{PAGE.get(row.name, row.name)}.md").read_text()
    assert row.layer.__name__ in text
    assert row.paper.split(",")[0] in text
    for argument in list(inspect.signature(row.layer).parameters):
        assert argument in text, f"{row.name}: {argument} is not on its page"
        assert argument in row.layer.__doc__ or argument in ("device", "dtype"), f"{row.name}: no docstring for it"
