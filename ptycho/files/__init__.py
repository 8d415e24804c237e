"""Files on the disk: what may be replaced or removed, and how everything is written.

:mod:`ptycho.files.record` decides; :mod:`ptycho.files.whole` writes files that appear only when they are complete;
:mod:`ptycho.files.locks` keeps two runs apart and finds what killed ones left.
"""

from ptycho.files.locks import only_writer, remove_leftovers, require_unlocked
from ptycho.files.record import RECORD, adopt, in_the_way, mixture, recorded, require_record, require_replaceable
from ptycho.files.whole import appears_whole, require_target, saved_together, written_whole

__all__ = [
    "RECORD",
    "adopt",
    "appears_whole",
    "in_the_way",
    "mixture",
    "only_writer",
    "recorded",
    "remove_leftovers",
    "require_record",
    "require_replaceable",
    "require_target",
    "require_unlocked",
    "saved_together",
    "written_whole",
]
