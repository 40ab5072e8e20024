"""Files of other kinds that carry a safetensors name: what they are, and what to do about it."""

from __future__ import annotations

from rankloom.tensorfile.defect import Defect

_LFS = b"version https://git-lfs"
_LFS_START = _LFS[:8]
_RESAVE = "save it as safetensors again; a pickle: name it .pt, 'loractl convert … --allow-pickle'"
_MAGIC = (
    (b"PK\x03\x04", "a zip archive, as torch.save writes it"),
    (b"\x1f\x8b", "gzip data"),
    (b"\x80\x02", "a pickle"),
    (b"\x80\x03", "a pickle"),
    (b"\x80\x04", "a pickle"),
    (b"\x80\x05", "a pickle"),
    (b"GGUF", "a GGUF model"),
    (b"\x89HDF", "an HDF5 file"),
    (b"<!DOC", "a web page"),
    (b"<html", "a web page"),
)


def explain(defect: Defect, prefix: bytes) -> Defect:
    """Return a better explanation of a broken header if its first bytes give one.

    A magic number alone condemns nothing: the length of a sound header may begin with any bytes.
    """
    if defect.rule not in {"FMT001", "FMT002", "FMT003", "FMT004"}:
        return defect
    if prefix.startswith(_LFS_START) and _LFS.startswith(prefix[: len(_LFS)]):
        message = "it is a Git LFS pointer, the weights themselves were not downloaded"
        return Defect("FMT014", message, "run 'git lfs pull' in the repository it came from")
    for magic, what in _MAGIC:
        if prefix.startswith(magic):
            return Defect("FMT015", f"it is {what}, not safetensors", _RESAVE)
    return defect
