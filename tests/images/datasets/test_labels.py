from pipeline.images.datasets.labels import label_notes


def test_numbers_with_many_values_are_told_to_be_read_as_classes():
    labels = [f"{n / 8}" for n in range(11)]
    assert label_notes([*labels, "", "nan"])[0] == (
        "The labels are numbers with 11 different values ('0.0', '0.125', '0.25' and 9 more): each "
        "is read as a class of its own. Quantities cannot be learned; put them into bins."
    )
    assert label_notes([label.replace(".", ",") for label in labels])


def test_few_numbers_and_whole_ones_are_classes():
    assert not label_notes(["0.5", "1.0", "1.5"])
    assert not label_notes([str(n) for n in range(100)])
    assert not label_notes([f"{n}.0" for n in range(100)])
    assert not label_notes([f"v{n / 8}" for n in range(100)])
    assert not label_notes([])


def test_lists_of_labels_are_told():
    for lists in (["['a', 'b']"], ["a;b"], ["a|b"], ["{a, b}"], ["(a, b)"], ["a, b"], ["a,c"]):
        assert label_notes(["a", "b", *lists]) == [
            f"Labels of 1 image look like lists of labels ('{lists[0]}'): each is read as one "
            "class of its own. An image has one class here, or an empty label."
        ]


def test_names_with_commas_and_brackets_are_no_lists():
    assert not label_notes(["Smith, John", "tower (old)", "(unknown)", "guinea pig", "a/b", ";"])


def test_words_for_no_value_are_told_with_the_number_of_images():
    assert label_notes(["nan", "None", "nan", "a"]) == [
        "Labels of 3 images are words for no value ('None' and 'nan'): each is read as one class "
        "of its own. An image has one class here, or an empty label."
    ]
