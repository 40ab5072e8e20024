"""Validation and repair of adapters, from folders or the registry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rankloom import bases, ref
from rankloom.client.versions import Versions
from rankloom.errors import AdapterError, RefError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from rankloom.repair import Repaired
    from rankloom.validate import Report

    Progress = Callable[[int, int], None]
    PathLike = str | os.PathLike[str]


class Checks(Versions):
    """What a client says of adapters."""

    def validate(
        self,
        adapter: PathLike,
        *,
        against: PathLike | None = None,
        engines: Sequence[str] = (),
        headers_only: bool = False,
        probe: bool = False,
        progress: Progress | None = None,
    ) -> Report:
        """Check an adapter, a ref or a folder, and how it fits a base.

        Args:
            adapter: a ref or a folder; a folder needs no registry.
            against: a base's folder, the name of a base in the registry, or an address
                (``https://…``, ``s3://…``), of which only config and headers are fetched.
            engines: serving engines that must serve what was trained, as ``"vllm==0.33"`` or
                ``"vllm,max_lora_rank=64"``; ``report.engines`` holds what each would do.
            headers_only: do not read the adapter's values nor the base's; the report says so.
            probe: run the base, which must be a folder, without and with the adapter on a few
                tokens: the adapter must have an effect, and that which was kept at its push.
            progress: called with (bytes hashed, bytes in all) while the base is fingerprinted.

        Returns:
            The report; its ``findings`` say what is wrong. A broken adapter is no exception here.
        """
        from rankloom.probe.check import check, open_
        from rankloom.validate import validate

        if probe and headers_only:
            message = "a probe reads all values, and headers_only reads none"
            raise RefError(message, hint="leave out one of them")
        where = ref.parse(adapter)
        # The version whose files are checked is the one whose probe is compared.
        resolved = self.resolve(str(adapter)) if probe and not isinstance(where, Path) else None
        named = resolved.version.pinned if resolved else str(adapter)
        folder = where if isinstance(where, Path) else self.pull(named)
        if against is None:
            report = validate(folder, engines=engines, headers_only=headers_only)
            return open_(report, "no base was given") if probe else report
        known = self._remote_base(against) or self._base(
            against, values=not headers_only, progress=progress
        )
        report = validate(
            folder,
            known.model,
            found=known.fingerprint,
            leaves=bases.apart(lambda: self.registry, self.settings, folder, known),
            engines=engines,
            headers_only=headers_only,
        )
        if not probe:
            return report
        place = Path(against).expanduser()
        if not (bases.is_folder(against) and place.is_dir()):
            return open_(report, "the base's values are not here: give its folder")
        try:
            part = self._part(folder)
        except AdapterError:
            return open_(report, "the adapter could not be read so far")
        kept = resolved.probe if resolved else None
        return check(report, part, place, known.fingerprint, kept)

    def repair(
        self,
        folder: PathLike,
        target: PathLike | None,
        *,
        against: PathLike | None = None,
        rank: int | None = None,
    ) -> Repaired:
        """Repair what is mechanical in an adapter's folder, exactly, and prove it.

        Keys get their prefix, factors one dtype that holds all their values, numbers that were
        texts become numbers. Every value is compared, and the result is validated.

        Args:
            folder: the folder.
            target: the folder to make; ``None``: repair ``folder`` itself.
            against: the base; it tells what names mean where that is open.
            rank: fill the factors up to this rank with zeros, for engines that ask for one.

        Returns:
            What was repaired, each with its rule.

        Raises:
            AdapterError: a file is too broken to be read.
            UnsupportedAdapterError: the factors cannot be brought to ``rank``.
            ConflictError: ``target`` exists and is not an empty folder.
        """
        from rankloom.repair import repair

        model = None if against is None else self._base(against, values=False).model
        place = None if target is None else Path(target)
        return repair(Path(folder), place, base=model, rank=rank)
