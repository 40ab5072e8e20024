"""search and remark, on the embedded registry."""

from command_line import Run, answer


def test_what_is_said_of_a_version_is_found_by_it(run: Run) -> None:
    run("push", "./zh", "zh", "--base", "./base")
    run("push", "./qa", "acme/qa", "--base", "./base")
    assert "acme/qa@v1" in run("search", "--rank-max", "2", "--base", "base").stdout
    shown = run("remark", "zh", "--label", "task=chat", "--metric", "f1=0.5").stdout
    assert "task=chat" in shown
    found = answer(run("search", "--label", "task=chat", "--json"))
    assert [(item["name"], item["metrics"]) for item in found] == [("zh", {"f1": 0.5})]
    run("remark", "zh", "--label", "task=", "--deprecated", "old")
    assert "nothing" in run("search", "--label", "task=chat").stdout
    (left,) = answer(run("search", "zh", "--contains", "q_proj", "--json"))
    assert (left["deprecated"], left["metrics"], left["labels"]) == ("old", {"f1": 0.5}, {})
    assert "deprecated" not in answer(run("remark", "zh", "--undo-deprecated", "--json"))
    assert answer(run("search", "--within", "q_proj", "--limit", "1", "--json"))


def test_what_cannot_be_searched_for_is_refused(run: Run) -> None:
    run("search", "--base", "unknown", code=4)
    run("search", "--namespace", "A", code=2)
    run("remark", "zh", "--metric", "f1=good", code=2)
    run("push", "./zh", "zh", "--base", "./base")
    run("remark", "zh", "--metric", "f1=nan", code=2)
    run("remark", "zh", "--label", "Bad Name=x", code=2)


def test_a_deprecated_version_warns_who_pulls_it(run: Run) -> None:
    run("push", "./zh", "zh", "--base", "./base")
    run("remark", "zh", "--deprecated", "use qa")
    assert "deprecated: use qa" in run("pull", "zh").stderr


def test_a_semantic_version_is_pushed_shown_and_pulled(run: Run) -> None:
    run("push", "./zh", "zh", "--base", "./base", "--version", "1.2.0")
    assert "v1 1.2.0" in run("show", "zh").stdout
    assert "zh@v1 1.2.0" in run("search", "zh").stdout
    assert answer(run("pull", "zh@^1", "-o", "out", "--json"))
    assert (
        "REG004"
        in run("push", "./qa", "zh", "--base", "./base", "--version", "1.2.0", code=5).stderr
    )
    run("push", "./qa", "zh", "--base", "./base", "--version", "1.2", code=2)
    run("pull", "zh@^2", "-o", "other", code=4)


def test_versions_of_the_same_tensors_are_found(run: Run) -> None:
    run("push", "./zh", "zh", "--base", "./base")
    run("push", "./qa", "zh", "--base", "./base")
    run("push", "./zh", "acme/copy", "--base", "./base")
    for same in ("zh@v1", "./zh"):
        found = answer(run("search", "--same-as", same, "--json"))
        assert [f"{item['namespace']}/{item['name']}" for item in found] == [
            "acme/copy",
            "default/zh",
        ]
        assert {item["number"] for item in found} == {1}, "v2 has other tensors"
