"""Backup archives: written from a cluster's stream, verified, and read back record by record.

Written from docs/formats/ with `struct`, `zlib` and `hashlib`, like the log's reader, so that an
archive can be judged where no engine runs. Knows neither the network nor generated messages.
"""

from agniregistry.backup.content import ContentSum, StoredRecord, canonical, read_record
from agniregistry.backup.intake import Intake, Manifest, PartitionSummary, SourceError
from agniregistry.backup.reader import ArchiveReader
from agniregistry.backup.writer import ArchiveExistsError, ArchiveWriter

__all__ = [
    "ArchiveExistsError",
    "ArchiveReader",
    "ArchiveWriter",
    "ContentSum",
    "Intake",
    "Manifest",
    "PartitionSummary",
    "SourceError",
    "StoredRecord",
    "canonical",
    "read_record",
]
