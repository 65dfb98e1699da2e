"""Recipes as YAML: what is written reads back equal, and what is wrong is one sentence with file and line."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foveal.data.options import Augmentation, DataOptions
from foveal.data.stereo.options import StereoData
from foveal.errors import DataError, FovealError, NoMatchError, OptionError
from foveal.tasks.generation.recipe import GenerationRecipe
from foveal.tasks.plain import as_plain
from foveal.tasks.points.recipe import PointsRecipe
from foveal.tasks.recipe import About, ModelOptions, OptimizerOptions, Recipe, ScheduleOptions
from foveal.tasks.recipe_check import check
from foveal.tasks.recipe_files import find, names, read_recipe, recipe_text, write_recipe
from foveal.tasks.segmentation.recipe import SegmentationEvaluation, SegmentationRecipe
from foveal.tasks.stereo.recipe import StereoRecipe
from foveal.tasks.yaml_values import scalar

texts = st.text(max_size=12) | st.sampled_from(["no", "1e-3", "~", "", "1:30", "2020-01-01", "0o7", "<<", "=", "a: b"])
numbers = st.floats(allow_nan=False, width=64)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
about = st.builds(
    About, texts, texts, st.dictionaries(texts, numbers, max_size=2), st.lists(texts, max_size=3).map(tuple), texts
)
recipes = st.builds(
    Recipe,
    about=about,
    data=st.builds(
        DataOptions, name=texts, path=st.none() | texts, size=st.none() | st.integers(), crop_share=st.none() | numbers,
        augmentation=st.builds(Augmentation, scale=st.tuples(numbers, numbers), policy=st.none() | texts),
    ),
    model=st.builds(
        ModelOptions, name=texts, options=st.dictionaries(texts, plain, max_size=3),
        sites=st.lists(texts, max_size=2).map(tuple),
    ),
    optimizer=st.builds(OptimizerOptions, name=st.sampled_from(["sgd", "adam"]), lr=numbers, nesterov=st.booleans()),
    schedule=st.builds(
        ScheduleOptions, restarts=st.lists(numbers, max_size=4).map(tuple), tail_lr=st.none() | numbers
    ),
    epochs=st.integers(), clip=st.none() | numbers, precision=st.sampled_from(["no", "bf16"]), compile=st.booleans(),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(recipes)
def test_what_is_written_reads_back_equal(tmp_path_factory, recipe):
    path = tmp_path_factory.getbasetemp() / "one.yaml"
    write_recipe(path, recipe)
    assert read_recipe(path) == recipe
    assert "!" not in recipe_text(replace(recipe, about=About(), model=ModelOptions(), data=DataOptions()))


def test_options_are_written_whole_and_in_their_order():
    lines = recipe_text(Recipe()).splitlines()
    told = [line.partition(":")[0] for line in lines if not line.startswith(" ")]
    assert told == list(as_plain(Recipe()))
    assert "precision: 'no'" in lines


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3), ("-1.5E+2", -150.0), (".5", 0.5), ("3", 3), ("3.", 3.0), ("true", True), ("no", "no"),
        ("on", "on"), ("null", None), ("~", None), ("1:30", "1:30"), ("2020-01-01", "2020-01-01"), ("010", 10),
        ("gaussian", "gaussian"), ("[1, 2]", [1, 2]), ("", ""), ("{", "{"), (".inf", float("inf")),
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(text, value):
    assert scalar(text) == value
    assert type(scalar(text)) is type(value)


WRONG = {
    "optimizer:\n  lrr: 3": "line 2: there is no option optimizer.lrr. Did you mean optimizer.lr?",
    "optimiser: {lr: 3}": "line 1: there is no option optimiser. Did you mean optimizer?",
    "zzz: 3": "line 1: there is no option zzz. There are about, task, data,",
    "epochs: 2\noptimizer:\n  lr: fast": "line 3: optimizer.lr must be a number, got 'fast'.",
    "clip: '3'": "line 1: clip must be a number, got '3'.",
    "epochs: 3.5": "line 1: epochs must be a whole number, got 3.5.",
    "epochs: true": "line 1: epochs must be a whole number, got true.",
    "precision: false": "line 1: precision must be no, bf16 or fp16, got false.",
    "compile: 1": "line 1: compile must be true or false, got 1.",
    "schedule: {name: cosin}": "line 1: schedule.name must be cosine, restarts, step, poly or constant, got 'cosin'. "
    "Did you mean cosine?",
    "data:\n  augmentation:\n    scale: [1, 2, 3]": "line 3: data.augmentation.scale must be a list of 2, got",
    "schedule: {steps: 3}": "line 1: schedule.steps must be a list, got 3.",
    "model: 3": "line 1: model must be a mapping of options, got 3.",
    "about: {published: {accuracy: high}}": "line 1: about.published.accuracy must be a number, got 'high'.",
    "epochs: null": "line 1: epochs must be a whole number, got null.",
    "epochs: 1\nepochs: 2": "line 2: epochs is there twice. Drop one.",
    "seed: !!python/object/apply:os.system [ls]": "line 1: seed has the tag",
    "seed: [": "line 1 is no YAML: ",
    "- a": "must hold a mapping of options, got ['a'].",
    "seed: &a [*a]": "line 1: seed holds itself.",
    "base: ./none.yaml": "line 1: there is no file ",
    "base: 3": "line 1: base must be a path, got 3.",
    "base: one.yaml": "builds on itself.",
}


@pytest.mark.parametrize("text", WRONG, ids=lambda text: text.replace("\n", " ")[:30])
def test_what_is_wrong_is_one_sentence_with_file_and_line(tmp_path, text):
    path = tmp_path / "one.yaml"
    path.write_text(text)
    with pytest.raises((DataError, OptionError, NoMatchError)) as told:
        read_recipe(path)
    said = str(told.value)
    assert said.startswith(f"recipe: {path}")
    assert WRONG[text] in said
    assert "\n" not in said


def test_a_file_that_is_none_and_a_name_that_is_none_are_said_with_the_nearest(tmp_path):
    with pytest.raises(NoMatchError, match="there is no file none.yaml"):
        read_recipe("none.yaml")
    with pytest.raises(NoMatchError, match=r"there is no recipe 'small/digits-nome'. Did you mean small/digits-none"):
        read_recipe("small/digits-nome")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read: it is no text in UTF-8"):
        read_recipe(tmp_path / "binary.yaml")


def test_a_recipe_holds_what_it_builds_on_and_what_differs(tmp_path):
    (tmp_path / "_part.yaml").write_text(
        "about: {paper: P, table: T, published: {accuracy: 1}, cost: C, not_stated: [a]}\n"
        "model: {name: one, options: {depth: 3, heads: 2}}\nschedule: {steps: [1, 2]}\nepochs: 7\n"
    )
    (tmp_path / "deep").mkdir()
    path = tmp_path / "deep" / "two.yaml"
    path.write_text(
        "base: ../_part.yaml\nabout: {not_stated: [b]}\nmodel: {options: {heads: 4}}\nschedule: {steps: [5]}\n"
    )
    recipe = read_recipe(path)
    assert recipe.about == About(paper="P", not_stated=("a", "b"))
    assert recipe.model == ModelOptions("one", {"depth": 3, "heads": 4})
    assert (recipe.schedule.steps, recipe.epochs) == ((5.0,), 7)
    (tmp_path / "deep" / "three.yaml").write_text("base: two.yaml\nepochs: many\n")
    with pytest.raises(OptionError, match=r"three.yaml, line 2: epochs must be a whole number"):
        read_recipe(tmp_path / "deep" / "three.yaml")


def test_names_find_their_files_and_parts_are_no_recipes():
    assert "small/digits-none" in names()
    assert not any("/_" in name for name in names())
    for name in names():
        assert find(name).is_file()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"epochs": 0}, "--epochs must be at least 1 and at most 100000, got 0."),
        ({"smoothing": 1.0}, "--smoothing must be at least 0 and below 1, got 1.0."),
        ({"clip": 0.0}, "--clip must be above 0, got 0.0."),
        ({"ema": 1.0}, "--ema must be above 0 and below 1, got 1.0."),
        ({"optimizer": OptimizerOptions(lr=float("nan"))}, "--optimizer.lr must be above 0, got nan."),
        (
            {"optimizer": OptimizerOptions(betas=(0.9, 1.0))},
            "--optimizer.betas must be at least 0 and below 1, got 1.0.",
        ),
        ({"accumulate": 3}, "--batch-size 64 cannot be taken in --accumulate 3 equal parts."),
        ({"schedule": ScheduleOptions("step")}, "--schedule.name step needs --schedule.steps."),
        ({"schedule": ScheduleOptions("restarts")}, "--schedule.name restarts needs --schedule.restarts."),
        ({"schedule": ScheduleOptions(restarts=(3.0, 2.0))}, "--schedule.restarts must rise, got 3 2."),
        ({"schedule": ScheduleOptions("restarts", warmup=5, restarts=(5.0,))}, "the first of --schedule.restarts, 5,"),
        ({"schedule": ScheduleOptions(warmup=15, cooldown=6)}, "a warm-up of 15 and a cooldown of 6 epochs do not fit"),
        ({"data": DataOptions(size=4)}, "--data.size must be at least 8 and at most 4096, got 4."),
    ],
)
def test_numbers_out_of_their_range_are_said_with_the_range(changes, told):
    check(Recipe())
    with pytest.raises(FovealError) as error:
        check(replace(Recipe(), **changes))
    assert str(error.value).startswith(f"train: {told}")


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        (
            Recipe(schedule=ScheduleOptions(power=0.5)),
            "--schedule.power means nothing with --schedule.name cosine. Use --schedule.name poly, or leave it out.",
        ),
        (Recipe(schedule=ScheduleOptions("poly", steps=(3.0,))), "--schedule.steps means nothing with"),
        (Recipe(schedule=ScheduleOptions("constant", least_lr=1e-3)), "--schedule.least-lr means nothing with"),
        (
            Recipe(schedule=ScheduleOptions(warmup_lr=1e-3)),
            "--schedule.warmup-lr means nothing without --schedule.warmup. Give both, or leave it out.",
        ),
        (Recipe(optimizer=OptimizerOptions(momentum=0.5)), "--optimizer.momentum means nothing with --optimizer.name"),
        (Recipe(optimizer=OptimizerOptions("sgd", betas=(0.5, 0.9))), "--optimizer.betas means nothing with"),
        (
            Recipe(optimizer=OptimizerOptions("sgd", momentum=0.0, nesterov=True)),
            "--optimizer.nesterov means nothing without --optimizer.momentum.",
        ),
        (
            Recipe(data=DataOptions(augmentation=Augmentation(crop="padded", ratio=(1.0, 1.0)))),
            "--data.augmentation.ratio means nothing with --data.augmentation.crop padded.",
        ),
        (
            Recipe(data=DataOptions(augmentation=Augmentation(mixup=0.2, switch=0.1))),
            "--data.augmentation.switch means nothing without --data.augmentation.cutmix.",
        ),
        (
            SegmentationRecipe(evaluation=SegmentationEvaluation(stride=0.5)),
            "--evaluation.stride means nothing without",
        ),
        (PointsRecipe(channels_last=True), "--channels-last means nothing for points. Leave it out."),
        (Recipe(ema_start=5), "--ema-start means nothing without --ema. Give both, or leave it out."),
        (Recipe(ema_warmup=False), "--ema-warmup means nothing without --ema."),
        (PointsRecipe(ema_start=5), "--ema-start means nothing without --ema."),
        (SegmentationRecipe(ema_start=5), "--ema-start means nothing without --ema."),
        (GenerationRecipe(ema_start=5), "--ema-start means nothing without --ema."),
        (GenerationRecipe(ema_warmup=True), "--ema-warmup means nothing without --ema."),
    ],
)
def test_an_option_that_would_change_nothing_is_refused(recipe, told):
    with pytest.raises(OptionError) as error:
        check(recipe)
    assert str(error.value).startswith(f"train: {told}")


def test_a_plan_refuses_options_of_another_stereo_set():
    with pytest.raises(OptionError, match=r"--data.train-all means nothing for scene-flow"):
        check(StereoRecipe(data=StereoData("scene-flow", train_all=True)))


def test_options_of_another_curve_are_fine_at_their_defaults():
    check(Recipe(schedule=ScheduleOptions(power=0.9, factor=0.1)))
    check(GenerationRecipe(optimizer=OptimizerOptions("sgd", betas=(0.5, 0.999))))  # as its own recipe has them


def test_a_recipe_that_names_another_curve_forgets_what_its_base_had_of_its_own(tmp_path):
    (tmp_path / "_part.yaml").write_text(
        "schedule: {name: restarts, warmup: 1, warmup_lr: 1e-5, restarts: [2, 4], tail_lr: 1e-4}\n"
        "optimizer: {name: sgd, momentum: 0.8}\n"
    )
    (tmp_path / "one.yaml").write_text("base: _part.yaml\nschedule: {name: cosine}\noptimizer: {name: adamw}\n")
    recipe = read_recipe(tmp_path / "one.yaml")
    check(recipe)
    assert recipe.schedule == ScheduleOptions("cosine", warmup=1.0, warmup_lr=1e-5)
    assert recipe.optimizer == OptimizerOptions("adamw")
    (tmp_path / "two.yaml").write_text("base: _part.yaml\nschedule: {name: cosine, tail_lr: 1e-4}\n")
    with pytest.raises(OptionError, match=r"--schedule.tail-lr means nothing with --schedule.name cosine"):
        check(read_recipe(tmp_path / "two.yaml"))
    (tmp_path / "three.yaml").write_text("base: _part.yaml\nschedule: {warmup: 0}\n")
    assert read_recipe(tmp_path / "three.yaml").schedule.warmup_lr == 0
