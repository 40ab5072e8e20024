"""What client and registry say to each other: frozen messages, checked on both sides."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    StringConstraints,
)

from rankloom import ref, semantic
from rankloom.finding import Severity
from rankloom.fingerprint import Fingerprint
from rankloom.manifest import MAX_CARD, Manifest
from rankloom.message import Digest, Message, Name
from rankloom.signing.bundle import MAX_BYTES
from rankloom.signing.signers import Signer

Word = Annotated[str, StringConstraints(min_length=1, max_length=200)]
TokenId = Annotated[int, Field(ge=0, lt=1 << 31)]
SemVer = Annotated[str, AfterValidator(semantic.check)]
LabelValue = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^\x00]+$")]
EngineVerdict = Literal["accept", "reject", "silent-wrong", "degraded", "unknown"]
"""What an engine does with an adapter, see :class:`rankloom.validate.engines.Verdict`."""

MAX_PARTS = 10_000
"""As many parts as S3 takes for one object."""

MAX_LABELS = 64
MAX_METRICS = 256


class BaseTensorShape(Message):
    """Header of one tensor of a base: safetensors dtype code and shape.

    ``leaf`` is the digest of its values at level ``bf16``, if they were read.
    """

    dtype: str
    shape: tuple[int, ...]
    leaf: Digest | None = None


class BaseRecord(Message):
    """A base that the registry knows: enough to validate an adapter without the base's files.

    ``source`` is a claim (a repository or folder name) and identifies nothing.
    """

    name: Name
    fingerprint: Fingerprint
    source: str = ""
    config: dict[str, Any] = Field(default_factory=dict)
    tensors: dict[str, BaseTensorShape] = Field(default_factory=dict)


class BaseList(Message):
    """All bases in name order, each without its tensors."""

    items: tuple[BaseRecord, ...]


class AdapterFacts(Message):
    """What the registry derived from an adapter's files; it can be computed again at any time.

    ``tensors`` is the digest of its tensors, whatever file holds them.
    """

    kinds: tuple[str, ...]
    ranks: tuple[int, ...]
    targets: tuple[str, ...]
    parameters: int
    nbytes: int
    tensors: Digest | None = None


class Version(Message):
    """One immutable content of an adapter."""

    namespace: str
    name: str
    number: int
    semver: str | None = None
    digest: Digest
    base: str | None = None
    facts: AdapterFacts
    created_at: datetime
    yanked: str | None = None
    purged_at: datetime | None = None
    deprecated: str | None = None
    creator: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    metrics: dict[str, float] = Field(default_factory=dict)
    aliases: tuple[str, ...] = ()

    def __hash__(self) -> int:
        """Hash what never changes: the labels may, and a dict has no hash."""
        return hash((self.namespace, self.name, self.digest))

    @property
    def adapter(self) -> ref.AdapterName:
        """The adapter's full name."""
        return ref.AdapterName(self.namespace, self.name)

    @property
    def pinned(self) -> str:
        """A ref that always means this version."""
        return f"{self.adapter}@{self.digest}"


class Probe(Message):
    """What a base answered with an adapter when it was pushed, to be asked again later.

    Attributes:
        what: logits; of a model without a head, the last hidden state.
        tokens: what it was asked with.
        base: digest of the base's values at level ``bf16``.
        dtype: what it computed in.
        top: largest values of the last token's answer, each behind its place.
        norm: Frobenius norm of the answer to all tokens.
        effect: the largest change that the adapter made to any value.
        tolerance: how far another answer may be, of the largest value and of the norm.
    """

    what: Literal["logits", "last hidden state"]
    tokens: Annotated[tuple[TokenId, ...], Field(min_length=1, max_length=64)]
    base: Digest
    dtype: Literal["float32"] = "float32"
    top: Annotated[tuple[tuple[TokenId, FiniteFloat], ...], Field(min_length=1, max_length=64)]
    norm: FiniteFloat
    effect: FiniteFloat
    tolerance: FiniteFloat

    @property
    def limit(self) -> float:
        """How far a single value may be from the recorded one."""
        return self.tolerance * max(abs(value) for _, value in self.top)


class ResolvedVersion(Message):
    """A version with its manifest, all that a pull needs, and its probe, if there is one."""

    version: Version
    manifest: Manifest
    probe: Probe | None = None


class AdapterRecord(Message):
    """One adapter of the catalogue with its newest version that is not yanked."""

    namespace: str
    name: str
    card: str = ""
    latest: Version | None = None


class AdapterDetail(Message):
    """One adapter with all its versions, newest first.

    ``verdicts`` tells, by a version's digest, what each engine does with it as it starts by
    default, beside the recorded base if there is one. A version that the registry's present tables
    of engines have not judged yet is not in it.
    """

    namespace: str
    name: str
    card: str = ""
    versions: tuple[Version, ...] = ()
    verdicts: dict[Digest, dict[str, EngineVerdict]] = Field(default_factory=dict)


class Page(Message):
    """A page of the catalogue; ``next`` asks for the one after it and is ``None`` at the end."""

    items: tuple[AdapterRecord, ...]
    next: str | None = None


class UploadRequest(Message):
    """Begin to push: the whole manifest is declared before a byte moves."""

    manifest: Manifest
    base: Name | None = None
    semver: SemVer | None = None
    card: str | None = Field(default=None, max_length=MAX_CARD)


class PutTarget(Message):
    """Where the client sends one missing blob: URL and the headers that the signature covers."""

    digest: Digest
    url: str
    headers: dict[str, str] = Field(default_factory=dict)


class LargeBlob(Message):
    """A missing blob that comes in parts of ``part_bytes`` bytes; the last may be smaller."""

    digest: Digest
    part_bytes: int = Field(gt=0)


class Upload(Message):
    """An open upload; ``missing`` and ``large`` are the blobs that the store does not hold yet."""

    id: str
    missing: tuple[PutTarget, ...]
    large: tuple[LargeBlob, ...] = ()


class PartsRequest(Message):
    """Of which parts a large blob is made: their digests in order."""

    parts: Annotated[tuple[Digest, ...], Field(min_length=1, max_length=MAX_PARTS)]


class PartTarget(Message):
    """Where the client sends one part (counted from 1), as ``PutTarget`` for a whole blob."""

    number: int = Field(ge=1, le=MAX_PARTS)
    url: str
    headers: dict[str, str] = Field(default_factory=dict)


class MissingParts(Message):
    """The parts of a blob that have not arrived; none: the store holds the blob."""

    missing: tuple[PartTarget, ...]


class Publishing(Message):
    """The blobs of an upload are still being verified; publish it again to learn how it ends."""

    upload_id: str


class AliasRequest(Message):
    """Move an alias to ``digest`` if it names ``expected`` now (``None``: if it does not exist)."""

    digest: Digest
    expected: Digest | None = None


class AliasMove(Message):
    """Where an alias pointed before and where it points now."""

    alias: str
    before: Digest | None
    after: Digest


class YankRequest(Message):
    """Withdraw a version from resolution; ``None`` brings it back."""

    reason: str | None = Field(default=None, max_length=1000)


class VersionQuery(Message):
    """What versions are searched for; all that is given must hold.

    Attributes:
        text: words of the adapter's name, namespace or card, whole and in any case.
        namespace: only in this one.
        base: name of a recorded base, or one of its fingerprint's digests.
        rank_min: least rank; a version's rank is the largest of its targets.
        rank_max: largest rank.
        kind: how it stores its change, e.g. ``lora``.
        contains: modules that it changes, e.g. ``q_proj``.
        within: it changes no modules but these.
        labels: ``name=value`` that it carries.
        creator: name of the token that pushed it.
        tensors: digest of its tensors, as the facts of another version tell it.
        engine: an engine, e.g. ``vllm==0.33``, as it starts by default.
        verdict: what that engine does with it; ``None``: it accepts it.
        latest: only the version that ``latest`` means.
        yanked: yanked versions too.
    """

    text: str = Field(default="", max_length=200)
    namespace: Name | None = None
    base: str | None = Field(default=None, max_length=96)
    rank_min: int | None = Field(default=None, ge=0, le=1 << 30)
    rank_max: int | None = Field(default=None, ge=0, le=1 << 30)
    kind: str | None = Field(default=None, max_length=64)
    contains: tuple[Word, ...] = Field(default=(), max_length=20)
    within: tuple[Word, ...] = Field(default=(), max_length=50)
    labels: tuple[Word, ...] = Field(default=(), max_length=20)
    creator: Name | None = None
    tensors: Digest | None = None
    engine: str | None = Field(default=None, max_length=64)
    verdict: EngineVerdict | None = None
    latest: bool = True
    yanked: bool = False


class VersionPage(Message):
    """A page of versions, newest first; ``next`` asks for the one after it.

    ``incomplete``: an engine was asked for, and there are versions that the caller may read but the
    registry's present tables of engines have not judged yet, which are not found.
    """

    items: tuple[Version, ...]
    next: int | None = None
    incomplete: bool = False


class RelatedVersion(Message):
    """A version that has tensors of another one.

    Tensors of one content count once, whatever their names; those of one and the same value
    throughout, as of a factor that was not trained, do not count.

    Attributes:
        version: the version.
        shared: how many of its tensors the other one has.
        of: how many the other one has altogether.
        tensors: how many it has itself.
    """

    version: Version
    shared: int
    of: int
    tensors: int

    @property
    def is_same(self) -> bool:
        """Whether the two have the very same tensors."""
        return self.shared == self.of == self.tensors


class RelatedPage(Message):
    """A page of the versions that have tensors of one, those that have most of them first.

    Among those that have as many, the ones with the fewest others come first.

    Attributes:
        digest: the version that was asked about.
        items: the others.
        next: asks for the page after this one.
        incomplete: there are versions that the caller may read, but of which the registry does not
            know the single tensors yet, and which are not found.
    """

    digest: Digest
    items: tuple[RelatedVersion, ...]
    next: str | None = None
    incomplete: bool = False


class Remarks(Message):
    """What is newly said of a version beside its content; what is not named stays as it is.

    Attributes:
        deprecated: why it should not be used any more; an empty text takes that back.
        labels: names and values to search by; ``None`` removes one.
        metrics: names and numbers, e.g. of an evaluation; ``None`` removes one.
        probe: what a base answers with it.
    """

    deprecated: str | None = Field(default=None, max_length=1000)
    labels: dict[Name, LabelValue | None] = Field(default_factory=dict, max_length=MAX_LABELS)
    metrics: dict[Name, FiniteFloat | None] = Field(default_factory=dict, max_length=MAX_METRICS)
    probe: Probe | None = None


class TokenRequest(Message):
    """Make a token; ``grants`` are e.g. ``read``, ``admin:acme`` and ``push:acme/zh``."""

    name: Name
    grants: Annotated[tuple[str, ...], Field(min_length=1, max_length=100)]
    expires_at: AwareDatetime | None = None


class NewToken(Message):
    """A token that was just made; it is never shown again."""

    name: str
    token: str


class TokenRecord(Message):
    """What is known of a token, but not the token itself."""

    name: str
    grants: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None


class TokenList(Message):
    """Tokens in name order."""

    items: tuple[TokenRecord, ...]


class NamespaceRules(Message):
    """What is said about a namespace as a whole; these defaults hold where nothing is said.

    Sent as a change, it changes what it names, and only that.

    A version is never purged while it is the latest, an alias names it, or a composition that is
    kept was made of it.

    Attributes:
        anonymous_read: everybody may read, without a token.
        keep_versions: how many versions of an adapter are kept; ``None``: all.
        keep_days: younger versions are kept, however many there are.
        purge_yanked_days: age at which a yanked version is purged; ``None``: never.
        quota_bytes: how much its versions may take together; ``None``: as much as there is.
        protected_aliases: only who administers the namespace moves or removes these.
        required_signers: a version is given out, and named by an alias, only if one of these signed
            it; none: signatures are not asked for.
    """

    anonymous_read: bool = False
    keep_versions: int | None = Field(default=None, ge=1, le=1_000_000)
    keep_days: int = Field(default=30, ge=0, le=36500)
    purge_yanked_days: int | None = Field(default=None, ge=0, le=36500)
    protected_aliases: tuple[Name, ...] = ()
    quota_bytes: int | None = Field(default=None, ge=0, lt=1 << 62)
    required_signers: Annotated[tuple[Signer, ...], Field(max_length=20)] = ()


class TrustRequest(Message):
    """Trust a job of CI to push to a namespace, or only to one adapter of it.

    Attributes:
        issuer: who vouches for the job: ``github``, ``gitlab``, or what the server is set to know.
        repository: where the job's workflow lies, e.g. ``acme/adapters``.
        workflow: its file: ``publish.yml`` of GitHub's ``.github/workflows``, or GitLab's
            ``.gitlab-ci.yml`` with its path.
        environment: the job's environment; empty: whatever it is.
        adapter: the name of the only adapter that it may push; ``None``: all of the namespace.
    """

    issuer: Name
    repository: Annotated[
        str, StringConstraints(max_length=255, pattern=r"^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)+$")
    ]
    workflow: Annotated[
        str, StringConstraints(max_length=255, pattern=r"^[A-Za-z0-9._/-]*\.ya?ml$")
    ]
    environment: Annotated[str, StringConstraints(max_length=255, pattern=r"^[^\x00]*$")] = ""
    adapter: Name | None = None


class TrustedPublisher(TrustRequest):
    """A job of CI that is trusted to push to a namespace.

    ``repository_id`` is the issuer's number of the repository, as the first job told it: whoever
    takes the name when it is given up has another.
    """

    id: int
    namespace: str
    repository_id: str | None = None
    created_at: datetime


class TrustedPublishers(Message):
    """All that a namespace trusts, oldest first."""

    items: tuple[TrustedPublisher, ...]


class Audience(Message):
    """For whom an identity token must be made out."""

    audience: str


class MintRequest(Message):
    """Exchange an identity token (a JWT) of CI for a token of the registry."""

    token: Annotated[str, StringConstraints(min_length=1, max_length=1 << 14)]


class MintedToken(Message):
    """A token of the registry for one job; it ends by itself."""

    success: bool = True
    token: str = Field(repr=False)
    expires_at: datetime

    def is_fresh(self) -> bool:
        """Say whether it is good for so long that a request may begin with it."""
        return self.expires_at - datetime.now(UTC) > timedelta(minutes=5)


class SignatureRequest(Message):
    """Attach a signature to a version: a bundle of the OpenSSF model-signing format."""

    bundle: Annotated[str, StringConstraints(min_length=1, max_length=MAX_BYTES)]


class Signature(Message):
    """A signature that is attached to a version; by whom it is, only verifying it tells.

    Attributes:
        digest: of what the bundle says: its JSON with sorted keys and without spaces.
        bundle: the signature, as it was sent.
        creator: name of the token that attached it.
        created_at: when.
    """

    digest: Digest
    bundle: str
    creator: str
    created_at: datetime


class SignedVersion(ResolvedVersion):
    """A version with its manifest and all that was signed of it, oldest first."""

    signatures: tuple[Signature, ...] = ()


class AuditEntry(Message):
    """One line of the audit log: who changed what and when."""

    id: int
    at: datetime
    actor: str
    action: str
    namespace: str | None = None
    subject: str
    detail: dict[str, Any] = Field(default_factory=dict)
    request_id: str | None = None


class AuditPage(Message):
    """Lines of the audit log, newest first."""

    items: tuple[AuditEntry, ...]


class BlobUrl(Message):
    """Where the bytes of one file are, for a limited time."""

    url: str


class ProblemFinding(BaseModel):
    """A finding on the wire."""

    model_config = ConfigDict(extra="ignore")

    rule: str
    message: str
    severity: Severity = Severity.ERROR
    where: str = ""
    fix: str = ""


class Problem(BaseModel):
    """An error on the wire (RFC 9457 problem+json, with our code and findings)."""

    model_config = ConfigDict(extra="ignore")

    type: str = "about:blank"
    title: str = ""
    status: int
    detail: str
    code: str
    hint: str = ""
    request_id: str | None = None
    findings: list[ProblemFinding] = Field(default_factory=list)
