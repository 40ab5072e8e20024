"""A name without a namespace that several namespaces have is refused, by both doors (REG005)."""

from pathlib import Path

import pytest

from adapter_folder import push, write_adapter
from rankloom import ref
from rankloom.errors import NotFoundError, RefError
from rankloom.ref import VersionRef
from rankloom.registry.http import HttpRegistry
from rankloom.registry.protocol import Registry
from rankloom.registry.wire import NamespaceRules, TokenRequest
from rankloom_server.settings import Settings
from servers import served


def parsed(text: str) -> VersionRef:
    found = ref.parse(text)
    assert isinstance(found, VersionRef)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_adapter(tmp_path / "adapter")


def test_a_bare_name_is_refused_as_soon_as_another_namespace_has_it(
    registry: Registry, folder: Path
) -> None:
    version = push(registry, folder, "zh-lang")
    assert registry.resolve(parsed("zh-lang")).version == version
    for namespace in ("acme", "beta", "gamma", "omega"):
        push(registry, folder, f"{namespace}/zh-lang")
    names = "default/zh-lang, acme/zh-lang, beta/zh-lang and others"
    for bare in ("zh-lang", "zh-lang:latest", "zh-lang@v1"):
        with pytest.raises(RefError, match=f"^REG005 zh-lang may mean {names}$") as caught:
            registry.resolve(parsed(bare))
        assert "write the namespace" in caught.value.hint
    with pytest.raises(RefError, match=f"^REG005 zh-lang may mean {names}$"):
        registry.show(version.adapter, bare=True)
    assert registry.show(version.adapter).versions == (version,)
    for whole in ("default/zh-lang", "acme/zh-lang:latest", f"zh-lang@{version.digest}"):
        assert registry.resolve(parsed(whole)).version.digest == version.digest


def test_a_bare_name_of_another_namespace_is_not_found_but_named(
    registry: Registry, folder: Path
) -> None:
    push(registry, folder, "acme/zh-lang")
    with pytest.raises(NotFoundError, match="zh-lang in namespace default") as caught:
        registry.resolve(parsed("zh-lang"))
    assert "acme/zh-lang" in caught.value.hint


def test_only_namespaces_that_the_reader_sees_count(settings: Settings, folder: Path) -> None:
    """Else the refusal would tell what a private namespace holds, and anybody could break names."""
    with served(settings) as (url, token):
        admin = HttpRegistry(url, token)
        version = push(admin, folder, "zh-lang")
        push(admin, folder, "secret/zh-lang")
        grants = ("read:default",)
        reader = HttpRegistry(
            url, admin.create_token(TokenRequest(name="reader", grants=grants)).token
        )
        assert reader.resolve(parsed("zh-lang")).version == version
        admin.set_namespace_rules("secret", NamespaceRules(anonymous_read=True))
        with pytest.raises(RefError, match="REG005"):
            reader.resolve(parsed("zh-lang"))
        reader.close()
        admin.close()
