"""Grids: what their files mean and what is wrong with them; every grid that comes with foveal."""

from dataclasses import replace

import pytest

from foveal.analysis.ledger.papers import PAPERS
from foveal.analysis.ledger.verdict import is_figure
from foveal.errors import NoMatchError, OptionError
from foveal.tasks import recipe_files
from foveal.tasks.grid import names, read_grid
from foveal.tasks.preview import preview
from foveal.tasks.recipe import About

METRICS = {"accuracy": "top-1", "accuracy_top5": "top-5", "accuracy_held_out": "top-1, held out"}
OF_IMAGES = [name for name in names() if read_grid(name).base.task == "classification"]
PUBLISHED = [name for name in OF_IMAGES if not name.startswith("small/")]


@pytest.fixture
def grid(tmp_path):
    def write(text, overrides=None):
        path = tmp_path / "grid.yaml"
        path.write_text("recipe: small/digits-none\n" + text)
        return read_grid(path, overrides)

    return write


def test_every_combination_of_rows_lists_and_zips_is_a_run(grid):
    made = grid("""
set: {epochs: 3, optimizer: {decay: 0.1}}
rows:
  plain: {published: {accuracy: 90.5}}
  local: {model.mechanism: local}
grid: {optimizer.lr: [1e-3, 1], seed: [0, 1]}
zip: [{batch_size: [32, 64], accumulate: [1, 2]}]
""")
    assert len(made.runs) == 16
    assert len(made.rows) == 8
    assert made.rows[0] == "plain, lr 0.001, batch_size 32, accumulate 1"
    assert made.published[made.rows[0]] == {"accuracy": 90.5}
    assert [run.recipe.seed for run in made.runs] == [0] * 8 + [1] * 8
    values = {(run.recipe.batch_size, run.recipe.accumulate) for run in made.runs}
    assert values == {(32, 1), (64, 2)}
    assert {run.recipe.epochs for run in made.runs} == {3}
    assert {run.recipe.optimizer.decay for run in made.runs} == {0.1}
    last = made.runs[-1]
    assert last.name == "local-lr-1-batch-size-64-accumulate-2-1"
    assert (last.recipe.model.mechanism, last.recipe.optimizer.lr) == ("local", 1.0)


def test_an_override_reaches_every_run_and_takes_the_place_of_a_list(grid):
    text = "grid: {optimizer.lr: [1e-3, 1e-2], seed: [0, 1, 2]}"
    made = grid(text, {"seed": 5, "epochs": 2, "model.options.drop_rate": 0.1})
    assert [run.name for run in made.runs] == ["lr-0.001-5", "lr-0.01-5"]
    assert all(run.recipe.epochs == 2 and run.recipe.model.options == {"drop_rate": 0.1} for run in made.runs)


def test_rows_are_chosen_by_label_or_folder(grid):
    made = grid("rows: {'A, b': {smoothing: 0.1}, C: {smoothing: 0.2}}")
    assert made.only(("A, b",)).rows == made.only(("a-b",)).rows == ["A, b"]
    with pytest.raises(NoMatchError, match=r"has no row 'A, c'\. Did you mean 'A, b'|Did you mean A, b"):
        made.only(("A, c",))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("grid: {modle.name: [a]}", "there is no option modle. Did you mean model?"),
        ("grid: {model.nme: [a]}", "there is no option model.nme. Did you mean model.name?"),
        ("rows: {one: {optimizer.rate: 1}}", "row 'one': there is no option optimizer.rate"),
        ("set: {epochs.more: 1}", "there is no option epochs.more"),
        ("rwos: {}", "line 2: there is no option rwos. Did you mean rows?"),
        ("grid: {seed: 3}", r"seed must be a list of values, got 3. Write \[3\]"),
        ("grid: {seed: [0, a]}", "seed must be a whole number, got 'a'"),
        ("grid: {seed: [1, 1]}", "are one folder, .*-1. List each value once"),
        ("zip: [{seed: [0, 1], epochs: [1]}]", "must be equally long, got seed 2, epochs 1"),
        ("rows: {one: {seed: 1}}\ngrid: {seed: [0]}", "seed is set by row 'one' and listed by grid or zip"),
        ("rows: {one: 3}", "row 'one' must be a mapping of options, got 3"),
        ("rows: {one: {published: 3}}", "published of row 'one' must be metrics with numbers, got 3"),
        ("grid: {optimizer.lr: [-1]}", "--optimizer.lr must be above 0, got -1.0"),
        (f"grid: {{epochs: [7, 8, 9], seed: {list(range(4000))}}}", "12000 runs, more than 10000"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_one_sentence(grid, text, said):
    with pytest.raises(OptionError, match=said) as caught:
        grid(text)
    assert str(caught.value).startswith("sweep: ")


def test_an_override_of_what_the_rows_differ_in_is_refused(grid):
    with pytest.raises(OptionError, match="is what the rows of .* differ in"):
        grid("rows: {one: {epochs: 1}}", {"epochs": 3})
    with pytest.raises(OptionError, match="--epochs goes together with others"):
        grid("zip: [{epochs: [1], seed: [1]}]", {"epochs": 3})


def test_a_name_that_is_not_there_names_the_nearest(tmp_path):
    with pytest.raises(NoMatchError, match=r"no grid 'local/extent'\. Did you mean local/extents"):
        read_grid("local/extent")
    with pytest.raises(NoMatchError, match="there is no file"):
        read_grid(tmp_path / "gone.yaml")


def _kind(recipe):
    return recipe.task, recipe.model.name, getattr(recipe.model, "mechanism", ""), str(recipe.model.options)


def test_every_model_that_a_grid_names_can_be_built():
    # What recipes name, too, their own tests build.
    built = {_kind(recipe_files.read_recipe(name)) for name in recipe_files.names()}
    first = {}
    for name in OF_IMAGES:
        for run in read_grid(name).runs:
            if _kind(run.recipe) not in built:
                first.setdefault(_kind(run.recipe), run.recipe)
    assert len(first) > 15
    for key, recipe in first.items():
        seen = preview(recipe)
        assert seen.parameters > 1000, key
        assert seen.steps_per_epoch > 0, key


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_values_and_models_are_those_of_the_ledger(name):
    made = read_grid(name)
    paper, _, title = made.about.ledger.partition(", ")
    table = next(table for table in PAPERS[paper][1] if table.title == title)
    held = {row.label: row for row in table.rows}
    assert set(made.rows) <= held.keys()
    left = {label for label, row in held.items() if label not in made.rows}
    assert not {label for label in left if held[label].model}
    assert all(any(line.startswith(label) for line in made.about.missing) for label in left)
    for row in made.rows:
        printed = dict(zip((column.name for column in table.columns), held[row].printed.split(), strict=True))
        ours = {METRICS[metric]: value for metric, value in made.published[row].items()}
        wanted = {c: float(told) for c, told in printed.items() if c in METRICS.values() and is_figure(told)}
        assert ours == wanted, row
        recipe = next(run.recipe for run in made.runs if run.row == row)
        if held[row].model:
            assert recipe.model.name == held[row].model
        if table.data:
            assert recipe.data.name.replace("-", "") == table.data


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_row_trains_what_the_recipe_of_the_same_figure_trains(name):
    made = read_grid(name)
    paper = made.about.ledger.partition(", ")[0]
    recipes = [recipe_files.read_recipe(other) for other in recipe_files.names() if other.startswith(f"{paper}/")]
    recipes = [recipe for recipe in recipes if recipe.task == made.base.task]
    twins = 0
    for run in made.runs:
        plain = replace(run.recipe, about=About())
        for recipe in recipes:
            same = (recipe.model.name, recipe.data.name) == (plain.model.name, plain.data.name)
            if same and recipe.model.options == plain.model.options:
                twins += 1
                assert replace(recipe, about=About(), seed=plain.seed) == plain, run.row
    assert twins or name in ("local/stems", "local/positions", "augmented/positions")
