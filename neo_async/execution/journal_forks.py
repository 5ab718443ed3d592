"""The journals of this process, and what becomes of them in a process that is forked off it.

One process writes a journal, and holds its lock. A forked process has no share in either: it gives
up the locks (see `file_lock`), and abandons the journals that were open.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol

from neo_async.system.file_lock import forking


class _OpenJournal(Protocol):
    def abandon(self) -> None: ...


_open_journals: weakref.WeakSet[_OpenJournal] = weakref.WeakSet()
"""Journals of this process that a forked process must not touch."""


def abandon_after_fork(journal: _OpenJournal) -> None:
    """Have `journal.abandon()` called in every process that is forked off this one from now on."""
    with forking:
        _open_journals.add(journal)


def keep_after_fork(journal: _OpenJournal) -> None:
    """End what `abandon_after_fork` began: the journal is closed."""
    with forking:
        _open_journals.discard(journal)


def _leave_to_parent() -> None:
    """Give up all journals in a process that was forked off their own."""
    for journal in [*_open_journals]:
        journal.abandon()
    _open_journals.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
