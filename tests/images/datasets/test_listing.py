import os

import pytest

from pipeline.errors import PipelineError
from pipeline.images.datasets.scan import scan


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
        ("sep=;\r\npath;label\r\n1.jpg;a\r\n2.jpg;b\r\n", "sep.csv"),
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


def test_files_that_are_not_there_are_left_out_and_told_with_their_number_and_names(write, make):
    (make() / "folder").mkdir()
    path = write("path,label\n1.jpg,a\nno.jpg,b\nfolder,b\n2.jpg,c\n")
    images = scan(path)
    assert images.left_out == (("no.jpg", "missing"), ("folder", "not a regular file"))
    assert images.classes == ("a", "c")
    assert images.notes[0] == (
        f"Left out: 2 of the 4 files that {path} names (missing: 'no.jpg'; not a regular file: "
        f"'folder'). Paths are relative to {path.parent}."
    )


def test_a_list_is_refused_where_most_of_its_files_are_not_there(write, make):
    (make() / "folder").mkdir()
    gone = "".join(f"gone{n}.jpg,a\n" for n in range(3))
    assert refusal(write(f"path,label\n1.jpg,a\n2.jpg,b\n{gone}")) == (
        "Only 2 of the 5 files that LIST names are there (missing: 'gone0.jpg', 'gone1.jpg' and "
        "'gone2.jpg'). Paths are relative to FOLDER."
    )
    assert len(scan(write(f"path,label\n1.jpg,a\n2.jpg,b\n3.jpg,b\n{gone}")).paths) == 3
    assert refusal(write("path,label\n1.jpg,a\nno.jpg,a\nfolder,b\n")).startswith(
        "Only 1 of the 3 files that LIST names is there (missing: 'no.jpg'; not a regular file: "
    )


def test_a_list_of_files_that_lie_elsewhere_says_where_one_of_them_is(write, make):
    assert refusal(write("path,label\nx/1.jpg,a\nx/2.jpg,b\n")) == (
        "None of the 2 files that LIST names is there (missing: 'x/1.jpg' and 'x/2.jpg'). "
        "FOLDER/1.jpg is there: write '1.jpg' for 'x/1.jpg'."
    )
    assert "FOLDER/1.jpg is there: write '1.jpg' for '1'." in refusal(write("path,label\n1,a\n"))
    assert "line 3 has 1" in refusal(write("sep=,\npath,label\n1.jpg\n"))
    make("in/x.jpg")
    assert "FOLDER/in/x.jpg is there, and paths are relative to FOLDER" in refusal(
        write("path,label\nx.jpg,a\n")
    )


@pytest.mark.parametrize(
    ("path", "why"),
    [
        (r"C:\photos\x.jpg", "Perhaps they begin with a drive letter of Windows"),
        (r"\\server\x.jpg", "Perhaps they are addresses in a network of Windows"),
        ("file:///photos/x.jpg", "Perhaps they are file:// addresses, and lie elsewhere here"),
        ("~/no/x.jpg", "Perhaps they begin with '~', and are not in the home folder"),
        (r"a\x.jpg", "Perhaps they are written with backslashes, and are not there with '/'"),
        ("/photos/x.jpg", "Perhaps they are absolute, as on another machine perhaps"),
    ],
)
def test_paths_that_are_not_there_say_what_they_look_like(write, path, why, monkeypatch):
    monkeypatch.setenv("HOME", "/nowhere")
    assert why in refusal(write(f"path,label\n{path},a\n"))


@pytest.mark.parametrize(
    ("written", "how"),
    [
        (r"a b\é.jpg", "with backslashes"),
        (r".\a b\é.jpg", "with backslashes"),
        ("~/a b/é.jpg", "with ~ for the home folder"),
        ("file://{root}/a%20b/%C3%A9.jpg", "as file:// addresses"),
        ("file://localhost{root}/a b/é.jpg", "as file:// addresses"),
        ("FILE:{root}/a%20b/é.jpg", "as file:// addresses"),
        ("a b/e\u0301.jpg", "in another Unicode form (NFC or NFD)"),
        (r"a b\é.jpg", "with backslashes and in another Unicode form (NFC or NFD)"),
        (" a b/é.jpg ", "with blanks around them"),
    ],
)
def test_a_path_that_is_written_as_elsewhere_is_found_and_that_is_told(
    write, make, written, how, monkeypatch
):
    root = make("a b/é.jpg")
    monkeypatch.setenv("HOME", str(root))
    written = written.replace("{root}", str(root))
    images = scan(write(f"path,label\n1.jpg,a\n2.jpg,a\n3.jpg,b\n4.jpg,b\n{written},a\n"))
    assert images.paths[-1] == "a b/é.jpg" and not images.left_out
    assert images.notes == (f"Found, though written {how}: 1 path ('{written}' is a b/é.jpg).",)


def test_a_name_that_is_composed_is_found_where_the_disk_has_it_decomposed(write, make):
    make("e\u0301/o\u0308.jpg")
    images = scan(write("path,label\n1.jpg,a\n2.jpg,b\n\u00e9/\u00f6.jpg,a\n"))
    assert images.paths[-1] == "e\u0301/o\u0308.jpg"


def test_a_literal_path_comes_before_what_it_might_mean(write, make):
    make("a/1.jpg", r"a\1.jpg", "~", " x.jpg", "x.jpg", "é.jpg", "e\u0301.jpg")
    written = [r"a\1.jpg", "~", " x.jpg", "é.jpg", "e\u0301.jpg"]
    images = scan(write("path,label\n" + "".join(f"{path},a\n" for path in written)))
    assert list(images.paths) == written
    assert images.notes == ("There is only one class, 'a': nothing to tell apart.",)


def test_two_ways_to_write_one_file_are_one_image(write):
    images = scan(write("path,label\n1.jpg,a\n.\\\\1.jpg,a\n2.jpg,b\n3.jpg,b\n4.jpg,a\n"))
    assert images.paths == ("1.jpg", "2.jpg", "3.jpg", "4.jpg")
    assert any(note.startswith("Listed more than once") for note in images.notes)
    assert "Paths that are listed twice with different values" in refusal(
        write("path,label\n1.jpg,a\n.\\1.jpg,b\n2.jpg,b\n")
    )


def test_a_list_that_is_not_utf8_is_read_as_what_it_is_and_told(write, make):
    make("Käfer/1.jpg", "Bär/1.jpg")
    text = "path,label\nKäfer/1.jpg,Käfer\nBär/1.jpg,Bär\n1.jpg,Käfer\n2.jpg,Bär\n"
    path = write(text.encode("cp1252"))
    images = scan(path)
    assert images.classes == ("Bär", "Käfer") and not images.left_out
    assert images.paths[:2] == ("Käfer/1.jpg", "Bär/1.jpg")
    assert images.notes == (
        f"{path} is not UTF-8: read as cp1252, 4 names, such as 'Bär'. If that is wrong, save it "
        "as UTF-8.",
    )


def test_a_doubtful_encoding_is_told_with_what_another_would_make_of_a_name(write):
    text = "path,label\n1.jpg,köpek\n2.jpg,ağaç\n3.jpg,şişe\n4.jpg,şişe\n"
    images = scan(write(text.encode("cp1254")))
    assert (
        "read as cp1252, 3 names, such as 'aðaç' (in cp1254 it would be 'ağaç'). If that is wrong, "
        "save it as UTF-8."
    ) in images.notes[0]


@pytest.mark.parametrize("encoding", ["hz", "iso2022_jp_ext"])
def test_a_list_of_seven_bits_is_read_before_its_lines_are_parted(write, make, encoding):
    make("一/1.jpg")
    text = "path,label\n一/1.jpg,犬\n2.jpg,一\n3.jpg,犬\n4.jpg,一\n"
    path = write(text.encode(encoding))
    images = scan(path)
    assert images.paths[0] == "一/1.jpg" and images.classes == ("一", "犬")
    assert images.notes == (
        f"{path} is not UTF-8: read as {encoding}, with names such as '一/1.jpg'. If that is "
        "wrong, save it as UTF-8.",
    )


def test_a_list_in_utf7_is_read_so_where_its_files_say_so_and_else_told(write, make):
    make("Käfer/1.jpg")
    rows = "2.jpg,Bär\n3.jpg,Bär\n4.jpg,Käfer\n"
    path = write(f"path,label\nKäfer/1.jpg,Käfer\n{rows}".encode("utf-7"))
    images = scan(path)
    assert images.paths[0] == "Käfer/1.jpg" and images.classes == ("Bär", "Käfer")
    assert images.notes == (
        f"{path} is not UTF-8: read as UTF-7, 3 names, such as 'Käfer/1.jpg'. If that is wrong, "
        "save it as UTF-8.",
    )
    path = write(f"path,label\n{rows}".encode("utf-7"))
    assert scan(path).notes[0] == (
        f"'B+AOQ-r' is taken as it stands; in UTF-7 it would be 'Bär'. If that is wrong, save "
        f"{path} as UTF-8."
    )


def test_the_files_that_are_there_tell_the_encoding_of_a_list(write, make):
    make("ёж/1.jpg")  # two letters that also are a Chinese one
    images = scan(write("path,label\nёж/1.jpg,ёж\n1.jpg,b\n".encode("cp1251")))
    assert images.paths[0] == "ёж/1.jpg" and images.classes == ("b", "ёж")


def test_columns_that_are_not_known_are_told(write):
    images = scan(write("path,label,width,note\n1.jpg,a,3,\n2.jpg,a,4,x\n3.jpg,b,1,\n4.jpg,b,1,\n"))
    assert images.notes == ("Columns not used: 'width' and 'note'.",)


def test_a_row_that_comes_twice_counts_once_and_is_told(write):
    images = scan(write("path,label\n1.jpg,a\n./1.jpg,a\n2.jpg,a\n3.jpg,b\n4.jpg,b\n"))
    assert images.paths == ("1.jpg", "2.jpg", "3.jpg", "4.jpg")
    assert images.notes == ("Listed more than once and taken once: '1.jpg'.",)


def test_a_column_that_is_missing_is_named_with_the_nearest(write):
    assert refusal(write("pth,lable\n1.jpg,a\n")) == (
        "LIST cannot be used. The first line must name the columns path,label and optionally "
        "split,group: there is no 'path' in 'pth,lable': rename 'pth', if it is meant; there is "
        "no 'label' in 'pth,lable': rename 'lable', if it is meant."
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
