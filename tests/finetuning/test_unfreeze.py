import pytest

from pipeline.errors import UsageError
from pipeline.finetuning.network import Cut, cut


@pytest.mark.parametrize(
    ("asked", "after", "places"),
    [
        ("layer4", "layer3", ("layer4",)),
        ("layer3", "layer2", ("layer3",)),
        ("layer4,layer2", "layer1", ("layer2", "layer4")),
        ("1", "layer3", ("layer4",)),
        ("2", "layer2", ("layer3", "layer4")),
        ("layer4.1", "layer3", ("layer4",)),
        ("all", "pixels", ("stem", "layer1", "layer2", "layer3", "layer4")),
        ("stem", "pixels", ("stem",)),
        ("none", "feature", ()),
    ],
)
def test_names_numbers_and_modules_say_what_learns_and_where_the_boundary_is(
    trunk, asked, after, places
):
    found = cut(trunk().module, asked, layer="feature")
    assert (found.after, found.places) == (after, places)


def test_only_what_is_named_learns(trunk):
    module = trunk().module
    found = cut(module, "layer4.1", layer="feature")
    assert found.learns == tuple(module.parameters_of("layer4.1"))
    assert all(".layer4.1." in name for name in found.learns)


def test_all_is_every_parameter_of_the_trunk(trunk):
    module = trunk().module
    assert set(cut(module, "all", layer="feature").learns) == {
        n for n, _ in module.named_parameters()
    }


def test_the_neck_learns_only_when_it_is_named(trunk):
    module = trunk("mobilenet_v3_small").module
    assert cut(module, "layer4", layer="feature").places == ("layer4",)
    neck = cut(module, "neck", layer="feature")
    assert neck.after == "layer4" and neck.places == ("neck",)
    assert cut(module, "layer4,neck", layer="feature").places == ("layer4", "neck")


def test_a_table_of_an_earlier_layer_ends_there(trunk):
    module = trunk().module
    assert cut(module, "layer3", layer="layer3") == Cut(
        "layer2", tuple(module.parameters_of("layer3")), ("layer3",), ("stages.layer3",)
    )
    assert cut(module, "1", layer="layer3").places == ("layer3",)
    with pytest.raises(UsageError, match="behind layer3"):
        cut(module, "layer4", layer="layer3")


@pytest.mark.parametrize(
    ("layer", "asked", "after"),
    [
        ("layer2+layer4", "layer4", "layer2"),
        ("layer3+layer4", "layer4", "layer3"),
        ("layer3+feature", "layer2", "layer1"),
        ("stem+layer2", "all", "pixels"),
        ("layer2+layer3", "none", "feature"),
    ],
)
def test_the_boundary_of_several_layers_is_never_behind_the_first_of_them(
    trunk, layer, asked, after
):
    assert cut(trunk().module, asked, layer=layer).after == after


def test_nothing_behind_the_last_of_several_layers_can_learn(trunk):
    with pytest.raises(UsageError, match=r"'layer4' comes behind layer2\+layer3"):
        cut(trunk().module, "layer4", layer="layer2+layer3")


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ("layer5", r"no stage or module 'layer5'.*stem, layer1, layer2, layer3, layer4"),
        ("al", "Did you mean all"),
        ("9", "give 1 to 5"),
        ("0", "give 1 to 5"),
        ("layer4,", "empty name"),
        ("maxpool", "no parameters|pooling|no stage"),
        ("avgpool", "pooling"),
    ],
)
def test_what_cannot_be_meant_is_told_with_what_there_is(trunk, asked, text):
    with pytest.raises(UsageError, match=text):
        cut(trunk().module, asked, layer="feature")
