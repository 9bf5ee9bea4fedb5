import os

import pytest

from pipeline.errors import PipelineError
from pipeline.images.datasets.sources import scan


@pytest.fixture
def write(make):
    """Return a function that writes a listing beside images 1.jpg to 6.jpg and returns its path."""

    def listing(text, name="list.csv"):
        root = make(*(f"{n}.jpg" for n in range(1, 7)))
        path = root / name
        path.write_bytes(text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text)
        return path

    return listing


def refusal(path):
    with pytest.raises(PipelineError) as caught:
        scan(path)
    return str(caught.value).replace(str(path), "LIST").replace(str(path.parent), "FOLDER")


def test_paths_and_labels_in_the_files_order(write):
    images = scan(write("path,label\n3.jpg,b\n1.jpg,a\n2.jpg,b\n4.jpg,a\n"))
    assert images.name == "list"
    assert images.paths == ("3.jpg", "1.jpg", "2.jpg", "4.jpg")
    assert images.classes == ("a", "b")
    assert images.labels.tolist() == [1, 0, 1, 0]
    assert (images.splits, images.groups, images.notes) == (None, None, ())


def test_splits_and_groups(write):
    text = (
        "path,label,split,group\n1.jpg,a,train,g\n2.jpg,b,Train,\n3.jpg,a,valid,h\n4.jpg,b,test,\n"
    )
    images = scan(write(text))
    assert images.splits == ("train", "train", "val", "test")
    assert images.groups == ("g", "", "h", "")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("\ufeffpath,label\r\n1.jpg,a\r\n2.jpg,b\r\n", "bom.csv"),
        ("path\tlabel\n1.jpg\ta\n2.jpg\tb\n", "list.tsv"),
        ("path;label\n1.jpg;a\n2.jpg;b\n", "excel.csv"),
        ('"path","label"\n"1.jpg","a"\n"2.jpg","b"\n', "quoted.csv"),
        ("Label, Path \n a ,1.jpg\nb,2.jpg\n", "order.csv"),
        ("\npath,label\n\n1.jpg,a\n\n2.jpg,b\n\n", "blank.csv"),
        ("path,label\n1.jpg,a\n2.jpg,b\n".encode("utf-16"), "utf16.csv"),
        ("path,label\r1.jpg,a\r2.jpg,b", "mac.csv"),
    ],
)
def test_the_usual_dialects_are_understood(write, text, name):
    images = scan(write(text, name))
    assert images.paths == ("1.jpg", "2.jpg")
    assert images.classes == ("a", "b")


def test_a_quoted_field_may_hold_a_comma_and_a_line_end(write, make):
    path = write('path,label\n"x, y.jpg","a, b"\n1.jpg,"c\nd"\n')
    make("x, y.jpg")
    assert scan(path).classes == ("a, b", "c\nd")


def test_an_empty_label_is_unknown(write):
    images = scan(write("path,label\n1.jpg,a\n2.jpg,\n3.jpg,a\n"))
    assert images.labels.tolist() == [0, -1, 0]
    assert "1 of 3 images have no label." in images.notes


def test_without_any_label_there_is_no_split(write):
    assert scan(write("path,label\n1.jpg,\n2.jpg,\n")).splits == ("", "")


def test_paths_are_relative_to_the_file_and_may_be_absolute(write, make, tmp_path):
    elsewhere = make("x.jpg", root="elsewhere")
    path = write("")
    path.write_text(
        f"path,label\n./1.jpg,a\n{path.parent}/2.jpg,b\n{elsewhere}/x.jpg,a\n../elsewhere/x.jpg,a\n"
    )
    images = scan(path)
    assert images.paths[:2] == ("1.jpg", "2.jpg")
    assert images.paths[2].startswith("../")
    assert all((images.root / found).is_file() for found in images.paths)
    assert os.path.samefile(images.root / images.paths[2], elsewhere / "x.jpg")


def test_paths_are_relative_to_a_link_and_not_to_where_it_leads(write, make):
    (make(root="other") / "real.csv").write_text("path,label\n1.jpg,a\n2.jpg,b\n")
    link = write("").with_name("link.csv")
    link.symlink_to("../other/real.csv")
    assert scan(link).paths == ("1.jpg", "2.jpg")


def test_a_name_that_is_not_utf8_is_found(write, make):
    odd = os.fsdecode(b"\xe9t\xe9.jpg")
    make(odd)
    assert scan(write(f"path,label\n{odd},a\n1.jpg,b\n")).paths == (odd, "1.jpg")


def test_files_that_are_not_there_are_left_out(write, make):
    (make() / "folder").mkdir()
    images = scan(write("path,label\n1.jpg,a\nno.jpg,b\nfolder,b\n2.jpg,c\n"))
    assert images.left_out == (("no.jpg", "missing"), ("folder", "not a regular file"))
    assert images.classes == ("a", "c")


def test_a_file_where_nothing_is_there_is_refused_with_the_folder(write):
    assert refusal(write("path,label\nx/1.jpg,a\nx/2.jpg,b\n")) == (
        "None of the 2 files that LIST names is there ('x/1.jpg' and 'x/2.jpg'). Paths are "
        "relative to FOLDER."
    )


def test_columns_that_are_not_known_are_told(write):
    images = scan(write("path,label,width,note\n1.jpg,a,3,\n2.jpg,a,4,x\n3.jpg,b,1,\n4.jpg,b,1,\n"))
    assert images.notes == ("Columns not used: 'width' and 'note'.",)


def test_a_row_that_comes_twice_counts_once_and_is_told(write):
    images = scan(write("path,label\n1.jpg,a\n./1.jpg,a\n2.jpg,a\n3.jpg,b\n4.jpg,b\n"))
    assert images.paths == ("1.jpg", "2.jpg", "3.jpg", "4.jpg")
    assert images.notes == ("Listed more than once and taken once: '1.jpg'.",)


def test_a_column_that_is_missing_is_named_with_the_nearest(write):
    assert refusal(write("file,labels\n1.jpg,a\n")) == (
        "LIST cannot be used. The first line must name the columns path,label and optionally "
        "split,group: there is no 'path' in 'file,labels'; there is no 'label' in 'file,labels'. "
        "Did you mean labels?"
    )


def test_all_faults_come_in_one_message(write):
    text = "path,label,split,group\n1.jpg,a,trian,\n1.jpg,a,train,g\n2.jpg,b,train\n,b,train,\n"
    assert refusal(write(text)) == (
        "LIST cannot be used. Splits other than train, val, test: line 2 says 'trian'. Did you "
        "mean train or training? Lines that do not have 4 values: line 4 has 3. Lines without a "
        "path: line 5."
    )


def test_a_path_with_two_labels_and_a_group_in_two_splits_are_refused_together(write):
    text = "path,label,split,group\n1.jpg,a,train,g\n1.jpg,b,train,g\n2.jpg,b,val,g\n3.jpg,b,,\n"
    assert refusal(write(text)) == (
        "LIST cannot be used. Paths that are listed twice with different values: '1.jpg' with the "
        "label 'a' in line 2 and 'b' in line 3. Labelled images without a split, while others "
        "have one: line 5. Groups that cross splits: 'g' is in train and val."
    )


def test_of_many_faults_of_one_kind_the_first_are_shown(write):
    lines = "".join(f"{n}.jpg,a,x\n" for n in range(1, 9))
    assert "line 6 has 3 and 3 more." in refusal(write(f"path,label\n{lines}"))


def test_quotes_that_never_end_are_refused(write):
    assert "Quotes or lengths that make no sense: line 2" in refusal(write('path,label\n"1.jpg,a'))


def test_a_file_without_rows_is_refused(write):
    assert refusal(write("path,label\n")) == (
        "LIST names no images: there is only the line of columns."
    )


@pytest.mark.parametrize(
    ("content", "kind"),
    [(b"\x89PNG\r\n\x1a\n" + bytes(40), "an image"), (b"\x00\x01", "not a CSV or TSV file")],
)
def test_a_file_that_is_no_listing_is_refused(write, content, kind):
    assert refusal(write(content)) == (
        f"LIST is {kind}. Give a folder of images, or a CSV file with the columns path,label."
    )


def test_any_bytes_end_as_a_sentence(write):
    for content in (
        b"",
        b"\n",
        b"\xff\xfe",
        b"\xff\xfea",
        b",,,\n,,",
        b'"',
        b"path\r,label\n1.jpg,a",
    ):
        assert refusal(write(content))
