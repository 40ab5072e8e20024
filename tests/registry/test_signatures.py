"""Signatures through both doors of the registry, judged by the format's own command too."""

import base64
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from model_signing import hashing, signing, verifying

from adapter_folder import write_adapter
from rankloom.client import Client
from rankloom.errors import (
    BackendUnavailableError,
    ConflictError,
    IntegrityError,
    NotFoundError,
    RankloomError,
    RefError,
    SignatureError,
)
from rankloom.manifest import RECORD
from rankloom.ref import VersionRef
from rankloom.registry import signatures
from rankloom.registry.wire import NamespaceRules, SignedVersion
from rankloom.signing.bundle import MAX_BYTES
from rankloom.signing.signers import IdentitySigner, SigningKey, read_signer
from signing_keys import authority, certified, encrypted, key_pair

pytestmark = pytest.mark.filterwarnings("ignore:BASE001")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the key pairs ``ours`` and ``other``."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("ours", "other"):
        key_pair(folder, name)
    return folder


@pytest.fixture
def local() -> Iterator[Client]:
    """The embedded registry, where it makes no difference which one it is."""
    with Client() as made:
        yield made


def official(folder: Path, bundle: Path, trusted: Path) -> str | None:
    """Return why the format's own library refuses a folder, ``None`` if it does not."""
    config = verifying.Config()
    if trusted.suffix == ".crt":
        config.use_certificate_verifier(certificate_chain=[trusted])
    else:
        config.use_elliptic_key_verifier(public_key=trusted)
    try:
        config.verify(folder, bundle)
    except ValueError as error:
        return str(error)
    return None


def refused(call: Callable[[], object], *, word: str = "SEC007") -> SignatureError:
    with pytest.raises(SignatureError, match=word) as caught:
        call()
    assert caught.value.hint
    return caught.value


def changed(bundle: str, change: Callable[[dict[str, object]], None]) -> str:
    """Return a bundle whose statement was changed, as who has not the key can change it."""
    outer = json.loads(bundle)
    statement = json.loads(base64.b64decode(outer["dsseEnvelope"]["payload"]))
    change(statement)
    content = base64.b64encode(json.dumps(statement).encode()).decode()
    outer["dsseEnvelope"]["payload"] = content
    return json.dumps(outer)


def test_the_official_command_verifies_what_a_pull_gives(
    local: Client, adapter: Path, base: Path, keys: Path, tmp_path: Path
) -> None:
    local.push(adapter, "zh", base=base)
    local.sign("zh", keys / "ours.pem")
    public, bundle = keys / "ours.pub", tmp_path / "zh.sig"
    bundle.write_text(local.verify("zh", public).bundle)
    folder = local.pull("zh", tmp_path / "out", signed_by=public)
    command = [sys.executable, "-m", "model_signing", "verify", "key", folder]
    command += ["--signature", bundle, "--public_key", public]
    subprocess.run([*map(str, command)], check=True, capture_output=True)
    # The record says for which base it was made: it is signed like the weights.
    record = folder / RECORD
    record.write_text(record.read_text().replace('"base"', '"Base"'))
    assert RECORD in str(official(folder, bundle, public))


@pytest.mark.parametrize("curve", ["secp384r1", "secp521r1"])
def test_larger_keys_sign_too(local: Client, adapter: Path, tmp_path: Path, curve: str) -> None:
    private, public = key_pair(tmp_path, curve=curve)
    local.push(adapter, "zh", sign_with=private)
    bundle = tmp_path / "zh.sig"
    bundle.write_text(local.verify("zh", public).bundle)
    assert official(local.pull("zh"), bundle, public) is None


def test_what_the_official_library_signed_can_be_attached(
    client: Client, adapter: Path, keys: Path, tmp_path: Path
) -> None:
    client.push(adapter, "zh")
    folder, bundle = client.pull("zh", tmp_path / "out"), tmp_path / "zh.sig"
    private = keys / "ours.pem"
    signing.Config().use_elliptic_key_signer(private_key=private).sign(folder, bundle)
    refused(lambda: client.verify("zh", keys / "ours.pub"), word="is not signed")
    client.sign("zh", signature=bundle)
    assert client.verify("zh", keys / "ours.pub").bundle == bundle.read_text()


def test_a_signature_is_by_its_key_and_no_other(
    client: Client, adapter: Path, keys: Path, tmp_path: Path
) -> None:
    client.push(adapter, "zh")
    first = client.sign("zh", keys / "ours.pem")
    refused(lambda: client.verify("zh", keys / "other.pub"), word="Key mismatch")
    refused(lambda: client.pull("zh", tmp_path / "out", signed_by=keys / "other.pub"))
    assert not (tmp_path / "out").exists()
    assert client.sign("zh", keys / "ours.pem") == first  # the same key again changes nothing
    client.sign("zh", keys / "other.pem")
    both = [keys / "other.pub", keys / "ours.pub"]
    assert client.verify("zh", both).signer == read_signer(keys / "ours.pub")
    assert client.verify("zh", keys / "other.pub").signer == read_signer(keys / "other.pub")


def test_a_forged_signature_of_the_right_files_is_none(
    local: Client, adapter: Path, keys: Path, tmp_path: Path
) -> None:
    local.push(adapter, "zh")
    local.sign("zh", keys / "other.pem")
    forged = json.loads(local.verify("zh", keys / "other.pub").bundle)
    public = (keys / "ours.pub").read_text()
    hint = hashlib.sha256(public.encode()).hexdigest()  # as if our key had made it
    forged["verificationMaterial"]["publicKey"]["hint"] = hint
    file = tmp_path / "forged"
    file.write_text(json.dumps(forged))
    refused(lambda: local.verify("zh", keys / "ours.pub", signature=file))


def test_a_signature_of_another_version_is_refused_at_every_door(
    client: Client, adapter: Path, keys: Path, tmp_path: Path
) -> None:
    client.push(adapter, "zh")
    client.push(write_adapter(tmp_path / "second", seed=5), "zh")
    client.sign("zh@v1", keys / "ours.pem")
    file = tmp_path / "v1.sig"
    file.write_text(client.verify("zh@v1", keys / "ours.pub").bundle)
    refused(lambda: client.sign("zh@v2", signature=file), word="adapter_model.safetensors")
    refused(lambda: client.verify("zh@v2", keys / "ours.pub", signature=file))
    folder = client.pull("zh@v2", tmp_path / "out")
    refused(lambda: client.verify(folder, keys / "ours.pub", signature=file))


def test_the_same_files_for_another_base_are_another_version(
    local: Client, adapter: Path, base: Path, keys: Path, tmp_path: Path
) -> None:
    local.push(adapter, "zh", base=base)
    local.sign("zh", keys / "ours.pem")
    file = tmp_path / "sig"
    file.write_text(local.verify("zh", keys / "ours.pub").bundle)
    local.push(adapter, "other")
    refused(lambda: local.sign("other", signature=file), word=RECORD)


def drop(statement: dict[str, object]) -> None:
    statement["predicate"]["resources"].pop()  # type: ignore[index]


def ignore(statement: dict[str, object]) -> None:
    drop(statement)
    paths = {"ignore_paths": ["adapter_model.safetensors", RECORD]}
    statement["predicate"]["serialization"].update(paths)  # type: ignore[index]


def old(statement: dict[str, object]) -> None:
    statement["predicateType"] = "https://model_signing/Digests/v0.1"


@pytest.mark.parametrize("change", [drop, ignore, old])
def test_a_tampered_statement_is_refused(
    local: Client, adapter: Path, keys: Path, tmp_path: Path, change: Callable[..., None]
) -> None:
    local.push(adapter, "zh")
    local.sign("zh", keys / "ours.pem")
    bundle = local.verify("zh", keys / "ours.pub").bundle
    file = tmp_path / "sig"
    file.write_text(changed(bundle, change))
    refused(lambda: local.sign("zh", signature=file))
    refused(lambda: local.verify("zh", keys / "ours.pub", signature=file))


def test_a_signature_that_leaves_out_the_weights_covers_no_version(
    local: Client, adapter: Path, keys: Path, tmp_path: Path
) -> None:
    local.push(adapter, "zh")
    folder, bundle = local.pull("zh", tmp_path / "out"), tmp_path / "zh.sig"
    paths = [Path("adapter_model.safetensors")]
    hashing_config = hashing.Config().set_ignored_paths(paths=paths)
    config = signing.Config().set_hashing_config(hashing_config)
    config.use_elliptic_key_signer(private_key=keys / "ours.pem").sign(folder, bundle)
    assert official(folder, bundle, keys / "ours.pub") is None
    for call in (
        lambda: local.sign("zh", signature=bundle),
        lambda: local.verify(folder, keys / "ours.pub", signature=bundle),
    ):
        refused(call, word=r"adapter_model.safetensors was signed as absent")


NO_SIGNATURES = (
    b"",
    b"{}",
    b"[]",
    b"\x00",
    b"\xff\xfe",
    b"no JSON",
    b'{"verificationMaterial":{},"dsseEnvelope":{"payload":""}}',
    b'{"verificationMaterial":{"publicKey":{}},"dsseEnvelope":{"payload":"e30="}}',
    b'{"verificationMaterial":{"publicKey":{"hint":"x"}},"dsseEnvelope":{"payload":"!"}}',
    b"[" * 100_000,
    b"x" * (1 << 19),
)


def test_what_is_no_signature_is_refused_by_client_and_registry(
    client: Client, adapter: Path, keys: Path, tmp_path: Path
) -> None:
    version = client.push(adapter, "zh")
    file = tmp_path / "sig"
    for content in NO_SIGNATURES:
        file.write_bytes(content)
        refused(lambda: client.sign("zh", signature=file))
        refused(lambda: client.verify("zh", keys / "ours.pub", signature=file))
        text = content.decode("latin1")
        if 0 < len(text) < MAX_BYTES:
            refused(lambda: client.registry.add_signature(version.adapter, version.digest, text))  # noqa: B023
    with pytest.raises(NotFoundError):
        client.verify("zh", keys / "ours.pub", signature=tmp_path / "nowhere")


def test_certificates_are_trusted_by_their_authority(
    local: Client, adapter: Path, tmp_path: Path
) -> None:
    ours, rogue = authority(tmp_path, "ours"), authority(tmp_path, "rogue")
    between = authority(tmp_path, "between", ours)
    private, certificate = certified(tmp_path, "signer", between)
    local.push(adapter, "zh")
    local.sign("zh", SigningKey(private, certificate=certificate, chain=(between[1],)))
    bundle = tmp_path / "sig"
    bundle.write_text(local.verify("zh", ours[1]).bundle)
    folder = local.pull("zh", tmp_path / "out", signed_by=[rogue[1], ours[1]])
    assert official(folder, bundle, ours[1]) is None
    refused(lambda: local.verify("zh", rogue[1]))
    # Who calls himself the authority, and issues a certificate of the same name, is not it.
    private, certificate = certified(
        tmp_path / "fake", "signer", authority(tmp_path / "fake", "ours")
    )
    local.push(adapter, "qa")
    local.sign("qa", SigningKey(private, certificate=certificate))
    refused(lambda: local.verify("qa", ours[1]))


# The library says so by a method of logging that Python no longer recommends.
@pytest.mark.filterwarnings("ignore:The 'warn' method is deprecated:DeprecationWarning")
def test_a_certificate_that_is_not_for_signatures_signs_nothing(
    local: Client, adapter: Path, tmp_path: Path
) -> None:
    ours = authority(tmp_path, "ours")
    private, certificate = certified(tmp_path, "server", ours, usage="keyAgreement")
    local.push(adapter, "zh")
    local.sign("zh", SigningKey(private, certificate=certificate))
    refused(lambda: local.verify("zh", ours[1]), word="cannot be used for signing")


def test_an_identity_is_not_proved_by_a_key(local: Client, adapter: Path, keys: Path) -> None:
    local.push(adapter, "zh")
    local.sign("zh", keys / "ours.pem")
    somebody = IdentitySigner(identity="a@example.org", issuer="https://example.org")
    refused(lambda: local.verify("zh", somebody), word="a@example.org")


def test_keys_that_cannot_be_used_are_refused_by_name(
    local: Client, adapter: Path, keys: Path, tmp_path: Path
) -> None:
    local.push(adapter, "zh")
    secret = encrypted(keys / "ours.pem", "a word")
    odd, odd_public = key_pair(tmp_path, "odd", curve="secp256k1")
    bad: list[tuple[Callable[[], object], type[RankloomError]]] = [
        (lambda: local.sign("zh", keys / "ours.pub"), RefError),
        (lambda: local.sign("zh", keys / "nowhere"), RefError),
        (lambda: local.sign("zh", secret), RefError),
        (lambda: local.sign("zh", SigningKey(secret, "another word")), RefError),
        (lambda: local.sign("zh", odd), RefError),
        (lambda: local.sign("zh"), RefError),
        (lambda: local.verify("zh", keys / "ours.pem"), RefError),
        (lambda: local.verify("zh", keys / "nowhere"), NotFoundError),
        (lambda: local.verify("zh", []), RefError),
    ]
    for call, kind in bad:
        with pytest.raises(kind) as caught:
            call()
        assert type(caught.value) is kind
        assert caught.value.hint
    local.sign("zh", SigningKey(secret, "a word"))
    local.verify("zh", keys / "ours.pub")
    with pytest.raises(RefError, match="secp256k1"):
        local.verify("zh", odd_public)


def test_folders_are_signed_and_verified_without_a_registry(
    adapter: Path, keys: Path, tmp_path: Path
) -> None:
    client, inside = Client(), adapter / "model.sig"
    client.sign_folder(adapter, keys / "ours.pem", inside)
    client.verify(adapter, keys / "ours.pub", signature=inside)
    outside = inside.rename(tmp_path / "model.sig")
    assert official(adapter, outside, keys / "ours.pub") is None
    (adapter / "more").write_text("x")
    refused(lambda: client.verify(adapter, keys / "ours.pub", signature=outside), word="more")
    (adapter / "more").unlink()
    (adapter / "link").symlink_to(adapter / "adapter_config.json")
    refused(lambda: client.verify(adapter, keys / "ours.pub", signature=outside), word="SEC007")
    with pytest.raises(RefError, match="where is its signature"):
        client.verify(adapter, keys / "ours.pub")
    assert not (tmp_path / "home/registry").exists()


def test_a_push_signs_before_the_alias_moves(client: Client, adapter: Path, keys: Path) -> None:
    signer = read_signer(keys / "ours.pub")
    rules = NamespaceRules(required_signers=(signer,))
    client.registry.set_namespace_rules("acme", rules)
    refused(lambda: client.push(adapter, "acme/zh", alias="prod"), word="is not signed")
    refused(lambda: client.pull("acme/zh"), word="is not signed")
    refused(lambda: client.push(adapter, "acme/zh", sign_with=keys / "other.pem"), word="by nobody")
    for _ in range(2):
        version = client.push(adapter, "acme/zh", alias="prod", sign_with=keys / "ours.pem")
        assert version.aliases == ("prod",)
    assert len(client.registry.signatures(VersionRef(version.adapter, number=1)).signatures) == 1
    assert client.pull("acme/zh:prod").is_dir()


def test_a_registry_that_gives_another_version_is_found_out(
    local: Client, adapter: Path, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = local.push(adapter, "zh")
    local.sign("zh", keys / "ours.pem")
    signed = local.registry.signatures(VersionRef(first.adapter, number=1))
    second = local.push(write_adapter(tmp_path / "second", seed=5), "zh")

    def old_one(_self: object, _ref: VersionRef) -> SignedVersion:
        return signed

    monkeypatch.setattr(type(local.registry), "signatures", old_one)
    with pytest.raises(IntegrityError, match="REG002"):
        local.pull(second.pinned, signed_by=keys / "ours.pub")


def test_a_missing_library_is_named_with_what_brings_it(
    local: Client, adapter: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local.push(adapter, "zh")
    local.sign("zh", keys / "ours.pem")
    for module in [name for name in sys.modules if name.split(".")[0] == "model_signing"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "model_signing", None)
    for call in (
        lambda: local.verify("zh", keys / "ours.pub"),
        lambda: local.pull("zh", signed_by=keys / "ours.pub"),
        lambda: local.push(adapter, "qa", sign_with=keys / "ours.pem"),
    ):
        with pytest.raises(BackendUnavailableError) as caught:
            call()
        assert "rankloom[sign]" in caught.value.hint


def test_a_version_has_so_many_signatures_and_no_more(
    client: Client, adapter: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rankloom_server import signatures as kept

    monkeypatch.setattr(kept, "MOST", 1)
    client.push(adapter, "zh")
    client.sign("zh", keys / "ours.pem")
    client.sign("zh", keys / "ours.pem")
    with pytest.raises(ConflictError, match="1 signatures"):
        client.sign("zh", keys / "other.pem")


def test_the_signature_is_not_shown_where_it_would_only_fill_the_screen() -> None:
    assert "secret" not in repr(
        signatures.Signed(IdentitySigner(identity="a", issuer="b"), "secret")
    )
