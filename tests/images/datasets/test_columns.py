import pytest

from pipeline.images.datasets.lists.columns import COLUMNS, NAMES, columns_of


def test_every_synonym_is_taken_for_its_column_in_any_case_and_with_blanks():
    for column, names in NAMES.items():
        other = next(name for name in COLUMNS[:2] if name != column)
        for name in names:
            for written in (name, name.upper(), name.replace("_", " "), name.replace("_", "-")):
                found = columns_of(f"{written},{other}")
                assert sorted(found.names) == sorted((column, other)), written
                assert found.notes == (
                    f"Columns taken by their names: '{written}' as the {column}.",
                )
                assert not found.faults


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("filename,class", ("path", "label")),
        ("image\ttarget", ("path", "label")),
        ("file|category|split", ("path", "label", "split")),
        ("Path;Label", ("path", "label")),
        ("id,path,label,filename", ("id", "path", "label", "filename")),
        ("img_path", ("path",)),
    ],
)
def test_headers_as_people_write_them(line, names):
    found = columns_of(line)
    assert (found.names, found.faults) == (names, ())


def test_an_exact_name_is_never_noted_and_what_is_not_used_is():
    assert columns_of("path,label,class").notes == ("Columns not used: 'class'.",)
    assert columns_of("PATH,Label,split,group").notes == ()


@pytest.mark.parametrize(
    ("line", "kind", "where"),
    [
        (
            "path,class,target",
            "Several columns may be the label",
            "'class' and 'target': rename the right one to 'label'",
        ),
        ("path,label,path", "Columns that come twice", "'path'"),
        ("file,file,label", "Columns that come twice", "'path'"),
        (
            "a/1.jpg,dog",
            "The first line must name the columns",
            "'a/1.jpg,dog' is an image already: put the line 'path,label' above it",
        ),
        (
            "1.jpg 3",
            "The first line must name the columns",
            "'1.jpg 3' is an image already: put the line 'path,label' above it",
        ),
        (
            "path,width",
            "The first line must name the columns path,label and optionally split,group",
            "there is no 'label' in 'path,width'",
        ),
    ],
)
def test_what_cannot_be_told_is_a_fault(line, kind, where):
    assert columns_of(line).faults == ((kind, where),)
