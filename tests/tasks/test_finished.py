"""Finished runs beside published figures: every recipe and every row of a grid fills the cells that it is for."""

import json
from dataclasses import replace

import pytest

from foveal.analysis.ledger import PAPERS, takes
from foveal.analysis.ledger.papers import row_cells
from foveal.analysis.ledger.records import COUNTED
from foveal.tasks.finished import finished_runs
from foveal.tasks.grid import names as grids
from foveal.tasks.grid import read_grid
from foveal.tasks.kinds import kind_of
from foveal.tasks.plain import as_plain
from foveal.tasks.recipe_files import names, read_recipe
from foveal.tasks.run_folder import write_metrics
from foveal.tasks.train import named

RECIPES = {name: read_recipe(name) for name in names()}
PUBLISHED = [name for name, recipe in RECIPES.items() if recipe.about.published]
# The cell is of images that no run of foveal measures on.
NOT_MEASURED = {"external/voc-resnet101": "test"}
HELD_OUT = "accuracy_held_out"


def write(folder, recipe, metrics, *, epochs=None):
    """A finished run of a recipe, without what the ledger does not read."""
    folder.mkdir(parents=True)
    config = {"task": recipe.task, "model": named(recipe.model), "data": recipe.data.name, "seed": recipe.seed}
    (folder / "config.json").write_text(json.dumps({**config, "recipe": as_plain(recipe)}))
    (folder / "result.json").write_text('{"status": "done"}')
    write_metrics(folder, [{"epoch": epochs or recipe.epochs, **metrics}])


def measured(recipe, published):
    """What a run that reached the published figures has in its metrics."""
    known = kind_of(recipe).metrics
    return {name: value / 100 if known[name].percent else value for name, value in published.items()}


def filled(paper, runs):
    """Metric, figure as printed and ours of every cell that a run fills; nothing is counted."""
    found = []
    for table in PAPERS[paper][1]:
        columns = tuple(column for column in table.columns if column.metric)
        for row in table.rows if columns else ():
            printed = dict(zip((column.name for column in table.columns), row.printed.split(), strict=True))
            shown = " ".join(printed[column.name] for column in columns)
            cells = row_cells(replace(table, columns=columns), replace(row, printed=shown), runs)
            by_name = {column.name: column.metric for column in columns}
            found += [
                (by_name[cell.column], cell.row, cell.published, cell.ours) for cell in cells if cell.ours is not None
            ]
    return found


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_finished_run_of_a_published_recipe_fills_its_cells(name, tmp_path):
    recipe = RECIPES[name]
    write(tmp_path / "run", recipe, measured(recipe, recipe.about.published))
    runs = finished_runs(tmp_path)
    found = filled(name.partition("/")[0], runs)
    if name in NOT_MEASURED:
        assert not found and NOT_MEASURED[name] in recipe.about.table
        return
    assert takes(runs[0])
    for metric, value in recipe.about.published.items():
        own = [(float(printed), ours) for at, _, printed, ours in found if at == metric]
        assert any(printed == pytest.approx(value, abs=0.051) for printed, _ in own), (metric, own)
        assert all(ours == pytest.approx(value) for _, ours in own)


@pytest.mark.parametrize("name", [name for name in grids() if not name.startswith("small/")])
def test_a_finished_run_of_every_row_of_a_grid_fills_its_cells(name, tmp_path):
    grid, rows = read_grid(name), {}
    for run in grid.runs:
        rows.setdefault(run.row, run.recipe)
    for row, recipe in rows.items():
        published = dict(grid.published[row])
        if not published or HELD_OUT in published:
            continue
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        write(folder / "run", recipe, measured(recipe, published))
        found = filled(name.partition("/")[0], finished_runs(folder))
        own = {(metric, float(printed)) for metric, label, printed, _ in found if label == row}
        assert published.items() <= own, (row, found)


def test_of_one_network_s_runs_the_one_whose_recipe_is_for_a_figure_fills_it(tmp_path):
    for name, epe in (("efficient/stereo-psmnet", 1.2), ("efficient/stereo-none", 0.6)):
        write(tmp_path / name, RECIPES[name], {"epe": epe})
    found = {(row, printed): ours for _, row, printed, ours in filled("efficient", finished_runs(tmp_path))}
    assert found == {
        ("PSMNet (original)", "1.09"): 1.2, ("PSMNet (baseline)", "0.513"): 0.6, ("PSMNet", "1.09"): 1.2
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("external/coco", {"attention": "none"}), ("external/coco", {"slots": 32}),
        ("external/modelnet40-pct", {"depth": 2}), ("external/cifar10-eagan", {"width": 8}),
        ("external/ade20k-resnet101", {"depth": 50}), ("explicit/cifar100", {"stages": [2]}),
    ],
)  # fmt: skip
def test_a_run_of_another_network_fills_no_cell_of_a_recipe(name, changed, tmp_path):
    recipe = RECIPES[name]
    options = {**recipe.model.options, **changed}
    write(tmp_path / "run", replace(recipe, model=replace(recipe.model, options=options)),
          measured(recipe, recipe.about.published))  # fmt: skip
    cells = filled(name.partition("/")[0], finished_runs(tmp_path))
    printed = {metric: value for metric, value in recipe.about.published.items()}
    assert not [cell for cell in cells if float(cell[2]) == printed[cell[0]]]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("external/coco-none", {"weights_backbone": "resnet50.pth", "trainable_layers": 3, "attention": "none"}),
        ("external/cifar10-sagan", {"width": 64, "latent": 128}), ("external/modelnet40-eat", {"slots": 64}),
        ("efficient/stereo-efficient", {"sites": ["dres1"], "width": 32}),
    ],
)  # fmt: skip
def test_options_that_change_no_network_hide_no_run(name, options, tmp_path):
    recipe = RECIPES[name]
    model = replace(recipe.model, options={**recipe.model.options, **options})
    write(tmp_path / "run", replace(recipe, model=model), measured(recipe, recipe.about.published))
    assert takes(finished_runs(tmp_path)[0], [name.partition("/")[0]])


@pytest.mark.parametrize(
    ("name", "group", "changed"),
    [
        ("external/voc-resnet50", "data", {"val": "train"}), ("external/modelnet40-pct", "data", {"held_out": "val"}),
        ("external/cifar10-sagan", "evaluation", {"features": "runs/own"}),
    ],
)  # fmt: skip
def test_what_was_measured_on_other_data_or_by_another_network_is_not_compared(name, group, changed, tmp_path):
    recipe = RECIPES[name]
    other = replace(recipe, **{group: replace(getattr(recipe, group), **changed)})
    write(tmp_path / "run", other, measured(recipe, recipe.about.published))
    (run,) = finished_runs(tmp_path)
    assert run.metrics == {} and not takes(run)


def test_runs_are_averaged_over_their_seeds_and_over_nothing_else(tmp_path):
    recipe = RECIPES["external/modelnet40-pct"]
    for seed, accuracy in ((0, 0.92), (1, 0.94)):
        moved = replace(recipe.data, path=f"/data/{seed}", workers=seed)
        write(tmp_path / f"own-{seed}", replace(recipe, seed=seed, data=moved), {"accuracy": accuracy})
    write(tmp_path / "z-large", replace(recipe, batch_size=64), {"accuracy": 0.5})
    found = [(run.seeds, round(run.metrics["accuracy"], 6)) for run in finished_runs(tmp_path)]
    assert found == [(2, 93.0), (1, 50.0)]


def test_no_column_that_takes_training_is_counted_without_it():
    for _, tables in PAPERS.values():
        for table in tables:
            for row in table.rows:
                cells = zip(table.columns, row.printed.split(), strict=True)
                assert all(column.rule is not None for column, cell in cells if cell == COUNTED)


def test_a_run_of_a_row_without_a_figure_is_not_taken(tmp_path):
    write(tmp_path / "run", RECIPES["external/cifar10-gan-none"], {"fid": 20.0, "inception_score": 8.0})
    (run,) = finished_runs(tmp_path)
    assert run.metrics and not takes(run)
