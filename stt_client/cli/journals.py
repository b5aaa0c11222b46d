"""Journals of one run of `stt transcribe`, for `--resume`."""

from __future__ import annotations

from stt_client.recordings.journal import Journal, JournalFolder
from stt_client.recordings.parts import Job


class Journals:
    """The journals of all recordings of a run.

    Args:
        resume: continue an earlier run.
    """

    def __init__(self, *, resume: bool) -> None:
        self._folder = JournalFolder()
        self._folder.prune()
        self._resume = resume
        self._open: list[Journal] = []

    def open(self, job: Job) -> Journal | None:
        """Open the journal of a recording; None for audio that is no file."""
        journal = self._folder.open(job.source, job.options, resume=self._resume)
        if journal is not None:
            self._open.append(journal)
        return journal

    @property
    def has_parts(self) -> bool:
        """Whether parts of a recording are kept that is not complete."""
        return any(journal.is_partial for journal in self._open)

    def delete(self) -> None:
        """Delete them: the run is complete."""
        for journal in self._open:
            journal.delete()
