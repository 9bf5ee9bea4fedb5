import pytest

from pipeline.errors import UsageError
from pipeline.images.sources import address
from pipeline.images.sources.address import expanded, held, is_remote, kind_of, known, opened


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.tar", "tar"), ("A.TAR.GZ", "tar"), ("a.tgz", "tar"), ("a.tar.zst", "tar"),
        ("a.zip", "zip"), ("a.parquet", "parquet"), ("x/a.arrow", "arrow"), ("a.tar/b.jpg", ""),
        (".tar", ""), ("a.tart", ""), ("tar", ""), ("a.zip.jpg", ""),
    ],
)  # fmt: skip
def test_an_archive_is_known_by_how_its_name_ends(name, kind):
    assert kind_of(name) == kind


def test_an_address_leads_into_the_first_archive_that_is_a_file(tmp_path):
    (tmp_path / "old.zip").mkdir()
    (tmp_path / "old.zip" / "a.tar").write_bytes(b"x")
    inner = f"{tmp_path}/old.zip/a.tar/cat/1.jpg"
    assert held(inner) == (f"{tmp_path}/old.zip/a.tar", "cat/1.jpg")
    assert held(f"{tmp_path}/old.zip/a.tar") is None and held(f"{tmp_path}/no.tar/x") is None
    assert held("s3://b/a.zip/cat/x.tar") == ("s3://b/a.zip", "cat/x.tar")


def test_braces_stand_for_numbers_and_words():
    assert list(expanded("s-{008..010}.tar")) == ["s-008.tar", "s-009.tar", "s-010.tar"]
    assert list(expanded("{a,b}-{1..2}")) == ["a-1", "a-2", "b-1", "b-2"]
    assert list(expanded("{x}.tar")) == ["{x}.tar"]
    for bad in ("{3..1}.tar", "{a..b}.tar", "{0..99999999}.tar", "{0..999}{0..999}.tar"):
        with pytest.raises(UsageError):
            list(expanded(bad))


def test_secrets_stay_in_the_process(monkeypatch):
    monkeypatch.setattr(address, "_ACCESS", {})
    signed = "https://me:word@host.org/a%20b/x.tar?X-Amz-Signature=abc"
    plain = known(signed)
    assert plain == "https://host.org/a b/x.tar"
    inner = "https://me:word@host.org/a%20b/x.tar/c?X-Amz-Signature=abc"
    assert opened(plain) == signed and opened(f"{plain}/c") == inner
    assert opened("https://host.org/other") == "https://host.org/other"
    assert known("https://host.org/") == "https://host.org" and known("memory://") == "memory://"
    assert address.cleaned("https://h.org/x?C=N;O=D") == "https://h.org/x"
    assert list(address.secrets()) == [plain]
    assert known("sftp://me@host/x") == "sftp://me@host/x"
    assert known("S3://bucket/a?b#c") == "s3://bucket/a?b#c"
    text = f"403, message='Forbidden', url='{signed}'"
    assert address.without_secrets(text) == (
        "403, message='Forbidden', url='https://host.org/a%20b/x.tar'"
    )


def test_what_is_an_address_elsewhere():
    assert is_remote("s3://b") and is_remote("memory://x") and not is_remote("file:///x")
    assert not is_remote("a/b") and not is_remote("C:\\x")
