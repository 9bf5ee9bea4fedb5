import pytest

from pipeline.images.datasets.lists import encodings

#: Encoding → classes as people in its places name them.
CLASSES = {
    "cp1252": [
        ["é"],
        ["Apfelbäume", "Löwenzahn"],
        ["señal", "niño"],
        ["L’été"],
        ["25 °C"],
        ["été", "hiver à Noël", "œufs", "forêt", "maçon", "garçon"],
    ],
    "cp1250": [["kůň", "žába", "želva"], ["świnia", "gęś"], ["gyűrű", "őz"]],
    "cp1251": [["кошка", "собака"], ["кіт", "їжак"], ["«кот»"]],
    "koi8-r": [["кошка", "собака"]],
    "cp866": [["кошка", "собака"]],
    "cp1253": [["γάτα", "σκύλος"]],
    "cp1255": [["כלב", "חתול"]],
    "cp1256": [["قط", "كلب"]],
    "cp932": [["猫", "犬"], ["ねこ", "いぬ"], ["猫（白）"]],
    "gb18030": [["苹果", "香蕉"], ["苹果（红）"]],
    "big5hkscs": [["蘋果", "香蕉"]],
    "cp949": [["고양이", "개"]],
    "iso8859-2": [["kůň", "žába", "želva"], ["świnia", "gęś"], ["mačka", "pas", "žirafa"]],
    "cp852": [["kůň", "žába", "želva"], ["świnia", "gęś"], ["kočka", "pes", "liška"]],
    "cp850": [["ação", "maçã"], ["Löwenzahn", "Apfelbäume"]],
    "cp437": [["señal", "niño"], ["été", "forêt", "maçon"]],
}


def stored(words, encoding):
    return [word.encode(encoding).decode("utf-8", "surrogateescape") for word in words]


@pytest.mark.parametrize("encoding", CLASSES)
def test_the_encoding_of_a_few_names_is_told(encoding):
    for words in CLASSES[encoding]:
        raw = stored(words, encoding)
        assert not all(map(encodings.is_utf8, raw))
        found, _ = encodings.encoding_of(set(raw), lambda _: 0)
        assert [encodings.read_as(word, found) for word in raw] == words


def test_files_that_are_there_decide_first():
    raw = set(stored(["ёж"], "cp1251"))
    assert encodings.encoding_of(raw, lambda name: name == "cp1251") == ("cp1251", "")


def test_the_next_likely_encoding_is_told_where_it_reads_otherwise():
    raw = set(stored(["köpek", "ağaç", "şişe"], "cp1254"))
    assert encodings.encoding_of(raw, lambda _: 0) == ("cp1252", "cp1254")


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("iso2022_jp_ext", "猫,犬\n"),
        ("iso2022_kr", "고양이,개\n"),
        ("hz", "path,label\na.jpg,猫\n"),
    ],
)
def test_encodings_of_seven_bits_are_told_by_their_shifts(encoding, text):
    assert encodings.seven_bits(text.encode(encoding)) == encoding
    assert encodings.seven_bits(text.encode()) == ""


def test_what_only_looks_like_seven_bits_is_none():
    for data in (b"a~{b}.jpg,x~y\n", b"plain,a\n", b"\x1b$)C\xff"):
        assert encodings.seven_bits(data) == "", data


def test_utf7_is_read_where_it_is_that():
    for text in ("café", "kůň", "猫"):
        assert encodings.from_utf7(text.encode("utf-7").decode()) == text
    for text in ("a+b", "C++", "+1", "x+yz-2", "1+1-2", "café"):
        assert encodings.from_utf7(text) == text


def test_every_byte_is_read_by_one_of_the_encodings():
    raw = bytes(range(128, 256)).decode("utf-8", "surrogateescape")
    assert encodings.encoding_of({raw}, lambda _: 0)[0] in encodings.ENCODINGS


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
)
def test_unicode_is_read_with_and_without_a_mark(encoding):
    assert encodings.decoded("path,label\na.jpg,猫 é\n".encode(encoding)) == (
        "path,label\na.jpg,猫 é\n"
    )


def test_bytes_that_are_no_text_are_none():
    for data in (
        b"\0\1",
        b"PK\3\4" + bytes(30),
        b"\xff\xfea",
        bytes(1000),
        b"a\0\0\0b" * 9,
        "猫,犬\n".encode("iso2022_jp"),
        "고양이,개\n".encode("iso2022_kr"),
    ):
        assert encodings.decoded(data) is None
    assert encodings.decoded(b"") == ""
