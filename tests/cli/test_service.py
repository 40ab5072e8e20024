"""serve and login, as processes."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from command_line import Run

LORACTL = Path(sys.executable).with_name("loractl")


@contextmanager
def serving() -> Iterator[list[str]]:
    """Serve the registry of this home until the block ends; give what is printed at the start."""
    command = [str(LORACTL), "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout is not None
        lines = [running.stdout.readline().decode()]
        try:
            if not (Path(os.environ["RANKLOOM_HOME"]) / "served-before").exists():
                lines.append(running.stdout.readline().decode())
            yield lines
        finally:
            running.send_signal(signal.SIGTERM)
            _, said = running.communicate(timeout=20)
            assert running.returncode == 0, said.decode()


def test_serve_prints_a_token_once_and_login_keeps_it(run: Run, place: Path) -> None:
    run("push", "./zh", "zh", "--base", "./base")
    with serving() as lines:
        address = re.search(r"http://127\.0\.0\.1:\d+", lines[0])
        token = re.search(r"rl_\S+", lines[1])
        assert address is not None
        assert token is not None
        run("login", address[0], "--token", "rl_wrong", code=9)
        run("login", address[0], "--token", token[0])
        # The server opened the embedded registry's own folder.
        assert "zh" in run("list").stdout
        run("push", "./qa", "qa", "--base", "base")
    (place / "home/config.json").unlink()
    (place / "home/served-before").touch()
    assert "qa" in run("list").stdout
    with serving() as lines:
        assert "rl_" not in lines[0]
