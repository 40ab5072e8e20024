"""Keys and certificates for tests, written by the openssl command: nothing of ours made them."""

import subprocess
from pathlib import Path


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def key_pair(folder: Path, name: str = "key", *, curve: str = "prime256v1") -> tuple[Path, Path]:
    """Write a private key and its public half; return both."""
    folder.mkdir(parents=True, exist_ok=True)
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    _openssl("ecparam", "-name", curve, "-genkey", "-noout", "-out", private)
    _openssl("pkey", "-in", private, "-pubout", "-out", public)
    return private, public


def encrypted(private: Path, password: str) -> Path:
    """Write a copy of a private key that a password protects."""
    target = private.with_suffix(".enc")
    _openssl("pkcs8", "-topk8", "-in", private, "-out", target, "-passout", f"pass:{password}")
    return target


def authority(
    folder: Path, name: str, issuer: tuple[Path, Path] | None = None
) -> tuple[Path, Path]:
    """Write a certificate authority, its own or below another: private key and certificate."""
    extension = "basicConstraints=critical,CA:TRUE"
    if issuer is not None:
        return _issued(folder, name, issuer, extension)
    private, _ = key_pair(folder, name)
    certificate = folder / f"{name}.crt"
    _openssl(
        *("req", "-x509", "-key", private, "-out", certificate, "-days", "30"),
        *("-subj", f"/CN={name}", "-addext", extension),
    )
    return private, certificate


def certified(
    folder: Path, name: str, issuer: tuple[Path, Path], *, usage: str = "digitalSignature"
) -> tuple[Path, Path]:
    """Write a private key and a certificate for it that an authority issued."""
    return _issued(folder, name, issuer, f"keyUsage=critical,{usage}")


def _issued(
    folder: Path, name: str, issuer: tuple[Path, Path], extension: str
) -> tuple[Path, Path]:
    private, _ = key_pair(folder, name)
    request, certificate = folder / f"{name}.csr", folder / f"{name}.crt"
    _openssl("req", "-new", "-key", private, "-subj", f"/CN={name}", "-out", request)
    extensions = folder / f"{name}.ext"
    extensions.write_text(f"{extension}\n")
    _openssl(
        *("x509", "-req", "-in", request, "-CA", issuer[1], "-CAkey", issuer[0]),
        *("-CAcreateserial", "-days", "30", "-extfile", extensions, "-out", certificate),
    )
    return private, certificate
