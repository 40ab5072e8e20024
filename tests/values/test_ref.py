import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankloom import ref
from rankloom.errors import RefError
from rankloom.ref import AdapterName, VersionRef

DIGEST = "sha256:" + "0f" * 32

names = st.from_regex(r"\A[a-z0-9]([a-z0-9_-]{0,20}[a-z0-9])?\Z").filter(
    lambda text: text not in {"con", "prn", "aux", "nul"}
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("zh-lang", VersionRef(AdapterName("default", "zh-lang"), alias="latest")),
        ("acme/zh-lang", VersionRef(AdapterName("acme", "zh-lang"), alias="latest")),
        ("zh-lang@v3", VersionRef(AdapterName("default", "zh-lang"), number=3)),
        (f"zh-lang@{DIGEST}", VersionRef(AdapterName("default", "zh-lang"), digest=DIGEST)),
        ("acme/zh-lang:prod", VersionRef(AdapterName("acme", "zh-lang"), alias="prod")),
        ("./zh-lang", Path("zh-lang")),
        ("out/", Path("out")),
        ("/data/out", Path("/data/out")),
        (Path("zh-lang"), Path("zh-lang")),
    ],
)
def test_each_form_of_a_ref(text: str | Path, expected: ref.Ref) -> None:
    assert ref.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("zh-lang", True),
        ("zh-lang:prod", True),
        ("zh-lang@v3", True),
        ("default/zh-lang@v3", False),
        ("acme/zh-lang", False),
        (f"zh-lang@{DIGEST}", False),
    ],
)
def test_a_ref_tells_whether_its_namespace_was_only_supposed(text: str, *, bare: bool) -> None:
    found = ref.parse(text)
    assert isinstance(found, VersionRef)
    assert found.bare is bare


def test_a_home_folder_is_expanded() -> None:
    assert ref.parse("~/out") == Path.home() / "out"


def test_a_folder_never_shadows_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "zh-lang").mkdir()
    monkeypatch.chdir(tmp_path)
    assert isinstance(ref.parse("zh-lang"), VersionRef)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a/b/c",
        "a@",
        "a@3",
        "a@v0",
        "a@v",
        "a@sha256:00",
        "a:",
        "a:b:c",
        "Zh",
        "zh lang",
        "zh..lang",
        "%2e%2e",
        "\u0430-cyrillic",
        "zh\u202elang",
        "-a",
        "a-",
        "con",
        "nul.txt",
        "x" * 97,
        "a\n",
        "~nobody-of-that-name",
        "~\0",
        "./a\0b",
    ],
)
def test_malformed_refs_are_refused(text: str) -> None:
    with pytest.raises(RefError):
        ref.parse(text)


@given(names, names, st.integers(1, 999), names)
def test_a_printed_ref_reads_back_the_same(space: str, name: str, number: int, alias: str) -> None:
    adapter = AdapterName(space, name)
    assert AdapterName.parse(str(adapter)) == adapter
    for value in (
        VersionRef(adapter, number=number),
        VersionRef(adapter, alias=alias),
        VersionRef(adapter, digest=DIGEST),
    ):
        assert ref.parse(str(value)) == value


@given(st.text(max_size=30))
def test_any_text_is_a_ref_or_refused(text: str) -> None:
    try:
        parsed = ref.parse(text)
    except RefError:
        return
    if isinstance(parsed, VersionRef):
        allowed = set(string.ascii_lowercase + string.digits + "._-")
        assert set(parsed.adapter.namespace + parsed.adapter.name) <= allowed
