"""The server's settings, from the environment: ``RANKLOOM_SERVER_DATA_DIR`` and so on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from rankloom.message import Name
from rankloom_server.oidc.issuer import KNOWN, Issuer, check_address
from rankloom_server.store.interface import URL_SECONDS

_STORE = re.compile(r"local|s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[\w./-]+)?", re.ASCII)
# No longer than the lease of an upload: see rankloom_server.publish.journal.
_DAY = 24 * 3600


def _check_store(text: str) -> str:
    if not _STORE.fullmatch(text):
        message = f"{text!r} is neither 'local' nor 's3://BUCKET' nor 's3://BUCKET/PREFIX'"
        raise ValueError(message)
    return text


class Settings(BaseSettings):
    """What a server needs to know.

    Attributes:
        data_dir: folder for everything that the server keeps on this machine.
        database_url: ``postgresql://…``; without it SQLite in ``data_dir``.
        store: ``local`` (in ``data_dir``) or ``s3://bucket[/prefix]``.
        s3_endpoint: address of an S3 server other than AWS, as this server reaches it.
        s3_public_endpoint: the same as clients reach it, if that differs.
        s3_region: region for signatures.
        s3_access_key: key id; without it boto3 looks in its usual places.
        s3_secret_key: secret of the key.
        public_url: this server's address in the URLs of blobs; without it, that of each request.
        signing_key: secret for the URLs of local blobs; without it one is kept in ``data_dir``.
        requests_per_minute: how many requests one token, or one address without a token, may send
            to one server process; 0 means no limit.
        log: lines for people (``text``), or one JSON object a line (``json``).
        collect_hours: how many hours lie between two garbage collections by this server; 0 means it
            makes none.
        oidc_issuers: those who vouch for jobs of CI, by name: ``{"url": …, "claims": "github"}`` or
            ``"gitlab"``, which says in whose form their tokens are.
        oidc_audience: for whom identity tokens must be made out; without it ``public_url``, else
            ``rankloom``.
        oidc_http: issuers on this machine may be reached without TLS, for tests.
        url_seconds: how long the URLs of blobs are good for.
    """

    model_config = SettingsConfigDict(
        env_prefix="RANKLOOM_SERVER_", frozen=True, extra="forbid", env_ignore_empty=True
    )

    data_dir: Path
    database_url: str | None = None
    store: Annotated[str, AfterValidator(_check_store)] = "local"
    s3_endpoint: str | None = None
    s3_public_endpoint: str | None = None
    s3_region: str = "us-east-1"
    s3_access_key: str | None = None
    s3_secret_key: SecretStr | None = None
    public_url: str = ""
    signing_key: SecretStr | None = Field(default=None, min_length=32)
    requests_per_minute: int = Field(default=0, ge=0)
    log: Literal["text", "json"] = "text"
    collect_hours: float = Field(default=6, ge=0)
    oidc_issuers: dict[Name, Issuer] = KNOWN
    oidc_audience: str = ""
    oidc_http: bool = False
    url_seconds: int = Field(default=URL_SECONDS, ge=60, le=_DAY)

    @model_validator(mode="after")
    def _issuers_can_be_trusted(self) -> Self:
        for issuer in self.oidc_issuers.values():
            check_address(issuer.url, http=self.oidc_http)
        return self
