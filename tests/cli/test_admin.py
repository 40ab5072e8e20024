"""gc, fsck, backup and restore, on the embedded registry."""

from pathlib import Path

from command_line import Run, answer
from rankloom.errors import IntegrityError


def test_a_sound_registry_is_said_to_be_sound(run: Run) -> None:
    run("push", "./zh", "zh", "--base", "./base")
    found = answer(run("admin", "fsck", "--rehash", "--json"))
    assert (found["sound"], found["versions"], found["rehashed"]) == (True, 1, 2)
    assert "0 blobs condemned" in run("admin", "gc").stdout
    assert "would be deleted" in run("admin", "gc", "--dry-run").stdout
    run("admin", "gc", "--grace-hours", "0", code=2)


def test_damage_is_found_and_mended_by_the_next_push(run: Run, place: Path) -> None:
    run("push", "./zh", "zh", "--base", "./base")
    weights = max(place.glob("home/registry/blobs/*/*/*/*"), key=lambda path: path.stat().st_size)
    weights.write_bytes(b"x" * weights.stat().st_size)
    run("admin", "fsck")
    shown = run("admin", "fsck", "--rehash", "--repair", code=IntegrityError.exit_code).stdout
    assert "damaged: default/zh@v1 adapter_model.safetensors" in shown
    run("push", "./zh", "zh", "--base", "./base")
    run("admin", "fsck", "--rehash")


def test_a_backup_can_be_opened_and_restored(run: Run, place: Path) -> None:
    run("push", "./zh", "zh", "--base", "./base")
    run("admin", "backup", "saved")
    found = answer(run("admin", "--data-dir", "saved", "fsck", "--rehash", "--json"))
    assert found["rehashed"] == 2
    run("admin", "--data-dir", "again", "restore", "saved")
    assert answer(run("admin", "--data-dir", "again", "fsck", "--json"))["versions"] == 1
    run("admin", "--data-dir", "again", "restore", "saved", code=5)
