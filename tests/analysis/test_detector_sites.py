"""Which sites of the detector a non-local module cannot afford: by the formulas, and in a training step of it."""

import pytest

from foveal.analysis.detector_sites import needs, table
from foveal.models.detection import SITES

GB = 1e9


@pytest.fixture(scope="module")
def rows():
    return {row.site: row for row in needs(images=2)}


def test_every_site_is_there_with_the_papers_positions(rows):
    assert tuple(rows) == SITES
    assert [rows[f"fpn{n}"].positions for n in range(1, 6)] == [71_680, 17_920, 4_480, 1_120, 280]
    assert [(rows[f"res{n}"].channels, rows[f"res{n}"].positions) for n in (3, 4)] == [(1024, 4_480), (2048, 1_120)]


def test_a_module_has_the_parameters_of_its_channels(rows):
    assert [rows[f"res{n}"].parameters for n in range(1, 5)] == [98_688, 328_320, 1_180_800, 4_458_624]


def test_what_the_table_could_not_run_takes_more_than_ten_gigabytes_and_what_it_ran_less_than_one(rows):
    assert all(rows[site].nonlocal_peak > 10 * GB for site in ("fpn1", "fpn2"))
    assert all(rows[site].nonlocal_peak < GB for site in ("fpn3", "res3"))
    assert max(row.efficient_peak for row in rows.values()) < 0.5 * GB


def test_a_step_holds_what_the_formula_counts_for_both_images_and_a_fused_one_no_map(rows):
    for row in rows.values():
        assert row.nonlocal_peak > 2 * 4 * row.positions**2
        assert row.nonlocal_ > 4 * row.positions**2 > 0
    assert rows["fpn1"].fused_peak < 2 * 4 * 71_680**2 / 10


def test_the_table_has_a_line_a_site(rows):
    assert len(table(list(rows.values())).splitlines()) == 2 + len(SITES)
