"""search by engines, related and admin index, on the embedded registry."""

from pathlib import Path

from adapter_folder import write_adapter
from command_line import Run, answer
from rankloom_server import db


def test_copies_and_relatives_are_listed(run: Run, place: Path) -> None:
    run("push", "./zh", "zh", "--base", "./base")
    run("push", "./qa", "qa", "--base", "./base")
    assert "no other version" in run("related", "zh").stdout
    run("push", "./zh", "acme/copy", "--base", "./base", "--version", "1.0.0")
    shown = run("related", "zh@v1").stdout
    assert "acme/copy@v1 1.0.0" in shown
    assert "4 of 4 (all)" in shown
    (found,) = answer(run("related", "acme/copy@1.0.0", "--json"))
    assert (found["version"]["name"], found["shared"], found["tensors"]) == ("zh", 4, 4)
    run("related", "nothing", code=4)


def test_versions_are_found_by_what_an_engine_does(run: Run, place: Path) -> None:
    run("push", "./zh", "zh", "--base", "./base")
    write_adapter(place / "wide", rank=32, width=8)
    run("push", "./wide", "wide", "--base", "./base")
    shown = run("search", "--engine", "vllm==0.33").stdout
    assert "zh@v1" in shown
    assert "wide@v1" not in shown
    refused = answer(run("search", "--engine", "vllm", "--verdict", "reject", "--json"))
    assert [item["name"] for item in refused] == ["wide"]
    shown = run("show", "wide").stdout
    assert "v1 in engines as they start by default, on base:" in shown
    (line,) = (line for line in shown.splitlines() if line.startswith("  reject:"))
    assert "vllm==0.33.0" in line
    run("search", "--verdict", "reject", code=2)
    run("search", "--engine", "vllm==0.1", code=3)


def test_an_answer_that_lacks_versions_says_so(run: Run, place: Path) -> None:
    run("push", "./zh", "zh", "--base", "./base")
    engine = db.open_engine(db.sqlite_url(place / "home/registry/registry.db"))
    with db.write(engine) as connection:  # as if an older program had published it
        connection.exec_driver_sql("UPDATE version SET judged_by = NULL, tensor_count = NULL")
    engine.dispose()
    assert "loractl admin index" in run("search", "--engine", "vllm==0.33").stderr
    assert "was not judged" in run("show", "zh").stdout
    run("push", "./qa", "qa", "--base", "./base")
    assert "loractl admin index" in run("related", "qa").stderr
    assert "admin index" in run("related", "zh", code=2).stderr
    assert "1 versions judged, 1 of them read whole" in run("admin", "index").stdout
    assert "zh@v1" in (done := run("search", "--engine", "vllm==0.33")).stdout
    assert not done.stderr
    assert answer(run("admin", "index", "--limit", "5", "--json"))["judged"] == 0
