"""Every error that rankloom raises on purpose.

::

    RankloomError                 3 / 500
    ├── RefError                  2 / 422   malformed ref, name or argument
    │   └── UnknownEngineError    3 / 422   a version of an engine that nobody has described
    ├── NotFoundError             4 / 404
    ├── ConflictError             5 / 409   an alias moved meanwhile; an output exists already
    ├── AdapterError              6 / 422   the adapter is broken; carries findings
    │   └── UnsupportedAdapterError         the adapter is sound, but not mergeable here
    ├── BaseError                 6 / 422   the base is broken or of a form that cannot be read
    ├── IncompatibleError         7 / 409   adapter and base, or adapters, do not fit
    ├── IntegrityError            8 / 502   stored bytes differ from their digest
    │   └── UploadCorruptError    8 / 422   uploaded bytes do
    ├── SignatureError            8 / 409   a version is not signed by whom it must be
    ├── RegistryError             3 / 503   unreachable, or answers nonsense
    │   ├── AuthError             9 / 401
    │   ├── ForbiddenError        9 / 403
    │   ├── RateLimitError        3 / 429
    │   └── OfflineError                    the registry would have to be asked, and must not be
    ├── DiskError                 3 / 507   a file of this machine cannot be written or read
    ├── WorkerLostError           3 / 503   a process or machine that did a part of the work is gone
    ├── EvaluationError           3 / 422   the caller's evaluation of a model gave no score
    └── BackendUnavailableError  10 / 501   something that the step needs is not installed

The first number is the exit code of ``loractl``, the second the HTTP status of the registry.
A message says what is wrong, which thing it is about, and (as ``hint``) the next step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rankloom.finding import Finding


class RankloomError(Exception):
    """The root of the tree; raised itself only for a fault of our own.

    Attributes:
        code: stable name of the error on the wire and in ``--json``.
        exit_code: what ``loractl`` ends with.
        http_status: what the registry answers.
        hint: the next step for the reader, may be empty.
        findings: the results of rules that led to the error, may be empty.
        request_id: id of the request in the registry's log, set by the client.
    """

    code: ClassVar[str] = "internal"
    exit_code: ClassVar[int] = 3
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, *, hint: str = "", findings: Iterable[Finding] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.findings: tuple[Finding, ...] = tuple(findings)
        self.request_id: str | None = None


class RefError(RankloomError):
    """A ref, a name or an argument is malformed."""

    code, exit_code, http_status = "invalid-request", 2, 422


class UnknownEngineError(RefError):
    """What this version of a serving engine does with adapters is not known."""

    code, exit_code = "unknown-engine", 3


class NotFoundError(RankloomError):
    """The thing that a ref, a name or a path speaks of does not exist."""

    code, exit_code, http_status = "not-found", 4, 404


class ConflictError(RankloomError):
    """The world moved meanwhile, or the output would overwrite something."""

    code, exit_code, http_status = "conflict", 5, 409


class AdapterError(RankloomError):
    """The adapter's files are broken; ``findings`` say how."""

    code, exit_code, http_status = "adapter-invalid", 6, 422


class UnsupportedAdapterError(AdapterError):
    """The adapter may be sound, but rankloom cannot treat it exactly, so it refuses."""

    code = "adapter-unsupported"


class BaseError(RankloomError):
    """The base model's files are broken or of a form that cannot be read."""

    code, exit_code, http_status = "base-invalid", 6, 422


class IncompatibleError(RankloomError):
    """Adapter and base, or several adapters, do not belong together."""

    code, exit_code, http_status = "incompatible", 7, 409


class IntegrityError(RankloomError):
    """Stored or transferred bytes differ from their digest; nothing of them is kept."""

    code, exit_code, http_status = "integrity", 8, 502


class UploadCorruptError(IntegrityError):
    """Uploaded bytes differ from the digest that the client declared."""

    code, http_status = "upload-corrupt", 422


class SignatureError(RankloomError):
    """A version is not signed by whom it must be, or a signature is not of this version."""

    code, exit_code, http_status = "signature", 8, 409


class RegistryError(RankloomError):
    """The registry cannot be reached, fails, or answers what no registry answers."""

    code, exit_code, http_status = "registry-unavailable", 3, 503


class AuthError(RegistryError):
    """No token, or one that the registry does not know."""

    code, exit_code, http_status = "unauthenticated", 9, 401


class ForbiddenError(RegistryError):
    """The token is known, but may not do this."""

    code, exit_code, http_status = "forbidden", 9, 403


class RateLimitError(RegistryError):
    """Too many requests."""

    code, exit_code, http_status = "rate-limited", 3, 429


class OfflineError(RegistryError):
    """The cache does not hold what is needed, and offline nobody else is asked."""

    code = "offline"


class DiskError(RankloomError):
    """A file cannot be written or read: the disk is full, read-only or broken, or not ours."""

    code, exit_code, http_status = "disk", 3, 507


class WorkerLostError(RankloomError):
    """A process or a machine that did a part of the work was lost more often than is bearable."""

    code, exit_code, http_status = "worker-lost", 3, 503


class EvaluationError(RankloomError):
    """What the caller evaluates models with failed, or gave no score."""

    code, exit_code, http_status = "evaluation-failed", 3, 422


class BackendUnavailableError(RankloomError):
    """A package or device that this step needs is not there; the message gives the reason."""

    code, exit_code, http_status = "backend-unavailable", 10, 501


class RankloomWarning(UserWarning):
    """Something that the user should know, but that does not make the result wrong."""


def tree(root: type[RankloomError] = RankloomError) -> Iterator[type[RankloomError]]:
    """Yield every class of the error tree, parents before children."""
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


def error_class(code: str) -> type[RankloomError]:
    """Return the class of a code that came over the wire (an unknown one is a registry error)."""
    return next((kind for kind in tree() if kind.code == code), RegistryError)
