"""Write docs/openapi.json, the description of the HTTP interface."""

import json
import tempfile
from pathlib import Path

from rankloom_server.app import create_app
from rankloom_server.settings import Settings

TARGET = Path(__file__).parents[1] / "docs/openapi.json"


def main() -> None:
    """Write it anew."""
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(Settings(data_dir=Path(folder)))
        TARGET.write_text(json.dumps(app.openapi(), indent=1, ensure_ascii=False) + "\n")
        app.state.service.close()


if __name__ == "__main__":
    main()
