"""An option is declared once: signature, dataclass and command line agree, and so do the checks."""

import inspect
import json
import math
import re
import shlex
from dataclasses import MISSING, fields
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from declared import EVERY, FUNCTIONS, KINDS, named
from tables import make_table

import pipeline
from pipeline.cli import COMMANDS, main
from pipeline.errors import DamagedError, UsageError
from pipeline.extraction.options import ExtractOptions
from pipeline.finetuning.options import FinetuneOptions
from pipeline.heads.options import FitHeadOptions
from pipeline.options import flag, helps, rules, types
from pipeline.store.cache import Cache
from pipeline.workflow.options import SETTINGS, STAGES, RunOptions

#: What functions take besides options, and what commands do.
SUBJECTS = {
    "preprocess",
    "data",
    "part",
    "table",
    "images",
    "model",
    "head",
    "what",
    "first",
    "second",
    "cache",
}
OF_COMMANDS = {"cache", "as_json", "model", "every", "opens", "form", "compare", "report", "part"}


def command_of(name):
    return main.get_command(click.Context(main), name)


def plain(annotation):
    """Return an annotation without what is only another way to give the same."""
    several = (" | Sequence[str]", " | Sequence[float]", " | Sequence[str | BaseEstimator]")
    for other in (" | Path", " | int", *several, " | BaseEstimator", " | nn.Module"):
        if annotation.startswith("str"):
            annotation = annotation.replace(other, "")
    return annotation


def test_every_public_function_with_options_is_looked_at():
    others = {"run", "list_heads", "list_models", "list_tables", "list_trunks", "own_trunk"}
    functions = {name for name in pipeline.__all__ if inspect.isfunction(getattr(pipeline, name))}
    assert functions == set(FUNCTIONS) | others


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_signature_spells_out_the_options(name):
    kind, _ = FUNCTIONS[name]
    given = inspect.signature(getattr(pipeline, name)).parameters
    assert set(given) - {f.name for f in fields(kind)} <= SUBJECTS
    for field in fields(kind):
        parameter = given[field.name]
        assert plain(parameter.annotation) == field.type, field.name
        assert parameter.default == field.default, field.name


@pytest.mark.parametrize("kind", KINDS, ids=named)
def test_the_command_line_has_the_options_with_their_defaults(kind):
    kind, name = KINDS[kind]
    command = command_of(name)
    options = {p.name: p for p in command.params if isinstance(p, click.Option)}
    assert set(options) - {f.name for f in fields(kind)} <= OF_COMMANDS | {"log_file"}
    values = command.make_context(name, []).params
    assert kind(**{f.name: values[f.name] for f in fields(kind)}) == kind()
    texts = {name: text for one in reversed(kind.mro()[:-2]) for name, text in helps(one).items()}
    click_types = {int: click.INT, float: click.FLOAT, str: click.STRING, tuple: click.STRING}
    for field, (plain_type, _) in types(kind).items():
        expected = click.BOOL if plain_type is bool else click_types[plain_type]
        assert options[field].type.name == expected.name, field
        assert options[field].help == texts.get(field), field
        assert options[field].multiple == (plain_type is tuple), field


def test_run_has_the_options_of_its_stages_in_signature_and_command():
    given = inspect.signature(pipeline.run).parameters
    assert set(given) == set(SETTINGS) | {"data", "report", "cache"}
    values = command_of("run").make_context("run", []).params
    assert set(values) == set(given) - {"cache"} | {"cache", "as_json"}
    for name, places in SETTINGS.items():
        declared = {
            (field.type, field.default)
            for stage, place in places
            for field in [STAGES[stage].__dataclass_fields__[place]]
        }
        ((type_, default),) = declared  # what several stages share means one thing
        if name == "unfreeze":
            type_, default = "str | None", None
        assert plain(given[name].annotation) == type_, name
        assert given[name].default == values[name] == default, name
    assert RunOptions.of(values) == RunOptions.of({})


def bad(kind, name):
    """Yield values of the right type that an option refuses, with what is said of them."""
    rule, plain_type = rules(kind)[name], types(kind)[name][0]
    if rule.choices:
        yield "nosuch", f"'nosuch' is not one of {', '.join(rule.choices)}."
    if rule.least is not None:
        below = plain_type(rule.least - 1)
        yield below, f"{below} is below {rule.least:g}."
    if rule.within is not None:
        low, high = (float(end) for end in rule.within[1:-1].split(","))
        outside = [low if rule.within[0] == "(" else low - 1]
        outside += [] if math.isinf(high) else [high if rule.within[-1] == ")" else high + 1]
        above = f"{outside[0]:g} is not above {low:g}."
        for value in outside:
            yield value, above if math.isinf(high) else f"{value} is not in {rule.within}."
    if plain_type is float:
        yield from ((v, f"{v} is not a finite number.") for v in (math.nan, math.inf))


REFUSED = [(kind, name, *one) for kind, name in EVERY for one in bad(kind, name)]


@pytest.mark.parametrize(("kind", "name", "value", "sentence"), REFUSED, ids=named)
def test_what_an_option_cannot_be_is_refused_in_one_sentence_that_names_it(
    kind, name, value, sentence
):
    with pytest.raises(UsageError) as caught:
        kind(**{name: value}).check()
    assert str(caught.value) == f"{flag(name)} {sentence}"
    assert isinstance(caught.value, ValueError) and caught.value.exit_code == 2


def test_every_fault_is_in_the_one_message():
    with pytest.raises(UsageError) as caught:
        ExtractOptions(pool="nosuch", seed=-1, views="8").check()
    assert re.findall(r"--[a-z]+", str(caught.value)) == ["--pool", "--views", "--seed"]


WRONG = {str: 7.5, int: "8", float: "0.5", bool: 1, tuple: "text"}


@pytest.mark.parametrize(("kind", "name"), EVERY, ids=named)
def test_a_value_of_another_type_is_refused_in_one_sentence_that_names_the_option(kind, name):
    plain_type, may_be_none = types(kind)[name]
    wrong = [WRONG[plain_type], object(), *([True] if plain_type in (int, float) else [])]
    wrong += [] if may_be_none else [None]
    for value in wrong:
        with pytest.raises(UsageError, match=rf"^{flag(name)} must be .*, not .*\.$"):
            kind(**{name: value}).check()


def test_numbers_of_numpy_and_tensors_without_axes_are_numbers():
    asked = FinetuneOptions(
        epochs=np.int64(2), lr=np.float32(0.25), weight_decay=0, seed=torch.tensor(3),
        live=np.bool_(True), optimizer=np.str_("sgd"), data=Path("a/b"),
    )  # fmt: skip
    asked.check()
    plain_ones = (asked.epochs, asked.lr, asked.weight_decay, asked.seed, asked.live)
    assert [type(one) for one in plain_ones] == [int, float, float, int, bool]
    assert json.loads(json.dumps(vars(asked))) == vars(asked)
    assert asked == FinetuneOptions(
        epochs=2, lr=0.25, weight_decay=0.0, seed=3, live=True, optimizer="sgd", data="a/b"
    )


def test_where_commas_join_several_a_list_may_be_given():
    assert ExtractOptions(layer=["layer3", "layer4"]) == ExtractOptions(layer="layer3,layer4")
    assert FitHeadOptions(clf=("ncm", "lda"), grid=[0.1, np.float64(1)]).grid == "0.1,1.0"
    assert FinetuneOptions(unfreeze=["layer4"]) == FinetuneOptions(unfreeze="layer4")
    assert FinetuneOptions(unfreeze=np.int64(2)) == FinetuneOptions(unfreeze="2")
    for wrong in ([], [None], ["a", True], [["a"]], {"a"}):
        with pytest.raises(UsageError, match="must be a text, or several in a list, not"):
            ExtractOptions(layer=wrong).check()


def test_a_network_or_its_tensors_are_refused_with_what_to_give_in_their_place():
    network = torch.nn.Linear(2, 2)
    with pytest.raises(UsageError) as caught:
        ExtractOptions(trunk=network, weights=network.state_dict()).check()
    assert str(caught.value) == (
        "--trunk must be a text, not an object of type Linear. Name a network of your own with "
        "pipeline.own_trunk(network, name=…, preprocess=…) and give that name as the trunk; "
        "weights alone are a file of torch.save. --weights must be a text or a path, not an object "
        "of type OrderedDict. Write the tensors with torch.save, and give the file."
    )


def test_a_recipe_is_the_options_again_and_a_damaged_one_is_a_sentence():
    asked = FitHeadOptions(clf="lda", shots=3)
    assert FitHeadOptions.recorded(vars(asked), "The head x") == asked
    with pytest.raises(DamagedError) as caught:
        FitHeadOptions.recorded(vars(asked) | {"shotz": 1}, "The head x")
    assert str(caught.value) == (
        "The head x is damaged: its recipe has 'shotz', which is no option. Did you mean shots?"
    )
    with pytest.raises(DamagedError, match="The head x is damaged: its recipe has --shots 0 is"):
        FitHeadOptions.recorded(vars(asked) | {"shots": 0}, "The head x")


PATHS = [
    (name, parameter.name)
    for name in FUNCTIONS
    for parameter in inspect.signature(getattr(pipeline, name)).parameters.values()
    if "Path" in parameter.annotation and parameter.name in rules(FUNCTIONS[name][0])
]


@pytest.mark.parametrize(("function", "name"), PATHS)
def test_a_path_is_the_same_as_its_text(function, name):
    kind = FUNCTIONS[function][0]
    assert kind(**{name: Path("a/b.png")}) == kind(**{name: "a/b.png"})
    kind(**{name: Path("a/b.png")}).check()


def test_whatever_means_a_file_or_folder_takes_a_path():
    meant = {
        (function, name)
        for function, (kind, _) in FUNCTIONS.items()
        for name, rule in rules(kind).items()
        if re.search("FILE|DIR", rule.metavar or "")
    }
    assert meant == set(PATHS)


def another(kind, field):
    """Return a value of an option that is not its default."""
    rule, plain_type = rules(kind)[field.name], types(kind)[field.name][0]
    if rule.choices:
        return next(choice for choice in reversed(rule.choices) if choice != field.default)
    if plain_type is bool:
        return not field.default
    values = {int: 7, float: 0.25, str: "a 'quoted' text", tuple: ("a", "-b")}
    return values[plain_type]


@pytest.mark.parametrize("kind", KINDS, ids=named)
def test_the_command_line_that_asks_for_the_same_says_all_that_decides_and_nothing_else(kind):
    kind, name = KINDS[kind]
    options = kind(**{field.name: another(kind, field) for field in fields(kind)})
    words = shlex.split(options.command_line(name, ["subject"]))
    assert words[:3] == ["pipeline", name, "subject"]
    assert kind().command_line(name, ["subject"]).split() == words[:3]
    read = command_of(name).make_context(name, words[3:]).params
    again = kind.of({key: value for key, value in read.items() if value is not None})
    assert again.deciding() == options.deciding()
    left = set(vars(options)) - set(options.deciding())
    assert all(getattr(again, key) == getattr(kind(), key) for key in left)


def test_what_stands_in_words_already_can_be_left_out():
    line = FitHeadOptions(clf="lda", seed=3).command_line("fit-head", ["t"], without=("clf",))
    assert line == "pipeline fit-head t --seed 3"


WITH_SEED = [
    name for name in COMMANDS if any("--seed" in param.opts for param in command_of(name).params)
]


def test_seven_commands_have_a_seed():
    assert {"run", "extract", "fit-head", "compare", "advise", "finetune", "show"} == set(WITH_SEED)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    cache = Cache.at(tmp_path_factory.mktemp("small") / "cache")
    path = cache.tables / "photos--fake--0123456789ab.h5"
    cache.set_current(make_table(path, train=12).path)
    return cache.root


@pytest.mark.parametrize("name", WITH_SEED)
def test_a_seed_below_zero_is_a_sentence_and_exit_code_2(small, name):
    done = CliRunner().invoke(main, [name, "--seed", "-1", "--cache", str(small)])
    assert done.exit_code == 2, done.output
    assert done.stderr.splitlines()[-1] == "Error: --seed -1 is below 0."
    assert done.stdout == "" and "Traceback" not in done.stderr


def test_fields_without_a_default_are_none():
    assert not [(kind, f.name) for kind, _ in KINDS.values() for f in fields(kind)
                if f.default is MISSING]  # fmt: skip
