"""Commands over signatures: sign, verify."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from loractl import options, output

if TYPE_CHECKING:
    from rankloom.registry.wire import Signature

_FILE = click.Path(path_type=Path)


@click.command()
@click.argument("ref", metavar="REF|DIR")
@click.option("--key", type=_FILE, metavar="PEM", help="Your private key (P-256, P-384, P-521).")
@click.option("--password", envvar="RANKLOOM_KEY_PASSWORD", help="Of an encrypted key.")
@click.option("--certificate", type=_FILE, metavar="PEM", help="The certificate of the key.")
@click.option(
    "--chain",
    type=_FILE,
    multiple=True,
    metavar="PEM",
    help="A certificate between it and its authority; may be given several times.",
)
@click.option("--sigstore", is_flag=True, help="Without a key: by your identity, over the network.")
@click.option("--signature", type=_FILE, metavar="FILE", help="Attach one that is made already.")
@click.option(
    "-o", "--output", "target", type=_FILE, metavar="FILE", help="Where that of a DIR is written."
)
@options.as_json
def sign(
    ref: str,
    key: Path | None,
    password: str | None,
    certificate: Path | None,
    chain: tuple[Path, ...],
    signature: Path | None,
    target: Path | None,
    *,
    sigstore: bool,
    as_json: bool,
) -> None:
    """Sign the version that REF names, or all files of DIR, in the OpenSSF model-signing format.

    The signature of a version covers its files, its base and its lineage, and is attached to it.
    """
    from rankloom import ref as refs
    from rankloom import sdk
    from rankloom.signing.signers import SigningKey

    if sum((key is not None, sigstore, signature is not None)) != 1:
        message = "one of --key, --sigstore and --signature is needed"
        raise click.UsageError(message)
    if (certificate and not key) or (chain and not certificate):
        message = "--certificate goes with --key, and --chain with --certificate"
        raise click.UsageError(message)
    using = SigningKey(key, password, certificate, chain)
    if isinstance(refs.parse(ref), Path):
        if target is None or signature is not None:
            message = "the signature of a folder is written to a file: -o FILE"
            raise click.UsageError(message)
        click.echo(sdk.sign_folder(ref, using, target))
        return
    if target is not None:
        message = "-o is for folders; 'loractl verify REF -o FILE' writes a version's signature"
        raise click.UsageError(message)
    made = sdk.sign(ref, None if signature else using, signature=signature)
    _print(ref, made, as_json=as_json)


def _print(ref: str, made: Signature, *, as_json: bool) -> None:
    if as_json:
        output.as_json(output.dump(made))
    else:
        click.echo(f"{ref} is signed: {made.digest}")


@click.command()
@click.argument("ref", metavar="REF|DIR")
@options.signers
@click.option("--signature", type=_FILE, metavar="FILE", help="The signature, if REF has not it.")
@click.option(
    "-o", "--output", "target", type=_FILE, metavar="FILE", help="Write what was verified there."
)
@options.as_json
def verify(
    ref: str, by: options.Signers, signature: Path | None, target: Path | None, *, as_json: bool
) -> None:
    """Say whether one of those named has signed the version REF, or every file of DIR.

    Exit code 8 if not (SEC007).
    """
    from rankloom import sdk
    from rankloom.files import write_atomic

    if not by:
        message = "by whom? --key, or --identity and --issuer"
        raise click.UsageError(message)
    found = sdk.verify(ref, by, signature=signature)
    if target is not None:
        write_atomic(target, found.bundle.encode())
    if as_json:
        output.as_json({"ref": ref, "signer": found.signer.model_dump(mode="json")})
    else:
        click.echo(f"{ref} is signed by {found.signer}")
