"""Who vouches for jobs of CI, and how their tokens say which job it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, StringConstraints, ValidationError

from rankloom.errors import AuthError
from rankloom.message import Message

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_Text = Annotated[str, StringConstraints(min_length=1, max_length=1000, pattern=r"^[^\x00]+$")]


class Issuer(Message):
    """Who vouches for jobs: its address, exactly as in its tokens, and their form."""

    url: str
    claims: Literal["github", "gitlab"]


KNOWN: Final = {
    "github": Issuer(url="https://token.actions.githubusercontent.com", claims="github"),
    "gitlab": Issuer(url="https://gitlab.com", claims="gitlab"),
}


@dataclass(frozen=True, slots=True)
class Job:
    """Which job a token speaks of.

    Attributes:
        issuer: name of who vouches for it.
        repository: where its workflow lies, in lower case.
        repository_id: the issuer's number of that repository.
        workflow: file of the workflow.
        environment: the job's environment, in lower case; empty if it has none.
        detail: what the audit log keeps besides.
    """

    issuer: str
    repository: str
    repository_id: str
    workflow: str
    environment: str
    detail: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """Describe the job in the words in which it is trusted."""
        named = f"environment {self.environment}" if self.environment else "no environment"
        return f"{self.issuer} repository {self.repository}, workflow {self.workflow}, {named}"


def _inside(path: str, head: str) -> str:
    """Return a workflow's file in its repository; another repository's can be no trusted one."""
    return path.removeprefix(head) if path.startswith(head) else f"({path})"


class _Github(BaseModel):
    """Source: docs.github.com, "OpenID Connect reference"."""

    repository: _Text
    repository_id: _Text
    job_workflow_ref: _Text
    environment: _Text | None = None
    ref: str = ""
    sha: str = ""
    run_id: str = ""

    def job(self, issuer: str) -> Job:
        """Return the job; its code must be a file of the repository itself."""
        head = f"{self.repository}/.github/workflows/"
        workflow = self.job_workflow_ref.partition("@")[0]
        return Job(
            issuer,
            self.repository.lower(),
            self.repository_id,
            _inside(workflow, head),
            (self.environment or "").lower(),
            {"ref": self.ref, "sha": self.sha, "run": self.run_id},
        )


class _Gitlab(BaseModel):
    """Source: docs.gitlab.com, "OpenID Connect (OIDC) authentication using ID tokens"."""

    project_path: _Text
    project_id: _Text
    ci_config_ref_uri: _Text
    environment: _Text | None = None
    ref: str = ""
    sha: str = ""
    job_id: str = ""

    def job(self, issuer: str) -> Job:
        """Return the job; its code must be a file of the project itself."""
        _, _, path = self.ci_config_ref_uri.partition("@")[0].partition("/")  # behind the host
        return Job(
            issuer,
            self.project_path.lower(),
            self.project_id,
            _inside(path, f"{self.project_path}//"),
            (self.environment or "").lower(),
            {"ref": self.ref, "sha": self.sha, "job": self.job_id},
        )


_FORMS: Final[dict[str, type[_Github | _Gitlab]]] = {"github": _Github, "gitlab": _Gitlab}


def read_job(name: str, issuer: Issuer, claims: dict[str, Any]) -> Job:
    """Return which job a verified token speaks of.

    Raises:
        AuthError: it does not say.
    """
    try:
        return _FORMS[issuer.claims].model_validate(claims).job(name)
    except ValidationError as error:
        found = error.errors()[0]
        message = f"the token of {name} names no job: {found['loc'][0]}: {found['msg']}"
        raise AuthError(message, hint=f"is it a token of a {issuer.claims} job?") from error


def check_address(url: str, *, http: bool) -> None:
    """Refuse an address whose answers somebody in between could have made.

    Raises:
        ValueError: it is neither ``https://`` nor, if ``http`` allows it, on this machine.
    """
    parts = urlsplit(url)
    local = http and parts.scheme == "http" and parts.hostname in _LOOPBACK
    if not (parts.hostname and (parts.scheme == "https" or local)):
        message = f"{url!r} is no https:// address"
        raise ValueError(message)
