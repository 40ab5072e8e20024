"""A client of today and a registry of tomorrow, whose answers say more; what is asked is strict."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from adapter_folder import base_record, fingerprint, push, write_adapter
from rankloom.errors import RefError
from rankloom.message import Message
from rankloom.ref import AdapterName, VersionRef
from rankloom.registry import http, wire
from rankloom.registry.http import HttpRegistry
from rankloom.registry.wire import AliasRequest, Remarks, TokenRequest, TrustRequest, VersionQuery
from rankloom_server.settings import Settings
from servers import served

NEW = "said_by_a_newer_registry"
NAME = AdapterName("default", "zh-lang")
READ: set[type[Message]] = set()
OTHERWISE = {"Audience", "MintedToken", "MissingParts", "Signature", "SignedVersion"}
"""Answers that need an issuer, 64 MB or a key; they are messages as the others are."""


def newer(value: object) -> Any:  # noqa: ANN401
    """Return a value as JSON, with a new field in every message in it."""
    if isinstance(value, BaseModel):
        fields = {
            info.serialization_alias or info.alias or name: newer(getattr(value, name))
            for name, info in type(value).model_fields.items()
        }
        if isinstance(value, wire.Manifest):
            return fields  # its digest is over all of it
        return {**fields, NEW: {"more": [1]}}
    if isinstance(value, dict):
        return {key: newer(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [newer(one) for one in value]
    return json.loads(json.dumps(value, default=str))


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpRegistry]:
    """A registry whose answers get new fields on their way."""
    plain = Message.__dict__["of_answer"].__func__

    def of_answer(cls: type[Message], text: bytes) -> Message:
        exact = cls.model_validate_json(text)
        more = json.dumps(newer(exact)).encode()
        with pytest.raises(ValidationError, match=NEW):
            cls.model_validate_json(more)
        found: Message = plain(cls, more)
        assert found == exact
        READ.add(cls)
        return found

    with served(Settings(data_dir=tmp_path / "data")) as (url, token):
        made = HttpRegistry(url, token)
        monkeypatch.setattr(Message, "of_answer", classmethod(of_answer))
        yield made
        made.close()


def test_what_a_newer_registry_says_beyond_is_passed_over(
    registry: HttpRegistry, tmp_path: Path
) -> None:
    folder = write_adapter(tmp_path / "a")
    registry.add_base(base_record())
    assert registry.get_base("tiny") == base_record()
    assert registry.list_bases()[0].name == "tiny"
    pushed = push(registry, folder, base="tiny", made_for=fingerprint())
    ref = VersionRef(NAME, number=1)
    assert registry.resolve(ref).version == pushed
    assert registry.show(NAME).verdicts[pushed.digest]
    assert registry.search(VersionQuery(engine="peft")).items[0].digest == pushed.digest
    push(registry, folder, "copy")
    assert registry.related(ref).items[0].version.name == "copy"
    assert registry.list_adapters().items[0].name == "copy"
    assert registry.set_alias(NAME, "prod", AliasRequest(digest=pushed.digest)).before is None
    assert registry.remark(NAME, pushed.digest, Remarks(labels={"task": "qa"})).labels
    assert registry.yank(NAME, pushed.digest, "bad").yanked == "bad"
    assert registry.blob_url(NAME, pushed.digest, "adapter_config.json")
    assert registry.create_token(TokenRequest(name="ci", grants=("read",))).token
    assert "ci" in {one.name for one in registry.list_tokens().items}
    assert registry.protect("default", "prod", protected=True).protected_aliases == ("prod",)
    given = TrustRequest(issuer="github", repository="acme/adapters", workflow="publish.yml")
    assert registry.trust("default", given).repository == "acme/adapters"
    assert registry.trusted_publishers("default").items
    assert registry.audit_log().items
    source = Path(http.__file__).read_text()
    used = set(re.findall(r"_(?:send|read)\(\s*wire\.(\w+)", source))
    assert used == {kind.__name__ for kind in READ} | OTHERWISE


def test_an_answer_must_still_say_what_it_must() -> None:
    with pytest.raises(ValidationError, match=r"(?s)before.*after"):
        wire.AliasMove.of_answer(b'{"alias": "prod", "after": 1, "then": 2}')


def test_a_request_of_a_newer_client_is_refused(registry: HttpRegistry) -> None:
    """It would have asked for something that is not done."""

    class Newer(AliasRequest):
        """An alias with a wish."""

        until: str = "tomorrow"

    digest = "sha256:" + "0" * 64
    with pytest.raises(RefError, match="until"):
        registry.set_alias(NAME, "prod", Newer(digest=digest, until="now"))
