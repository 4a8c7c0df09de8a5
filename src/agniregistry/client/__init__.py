"""The SDK's clients: `Client` and `AsyncClient`, and the handles that they give out."""

from agniregistry.client._async import AsyncClient
from agniregistry.client._async_backup import AsyncBackup
from agniregistry.client._async_cache import AsyncCache
from agniregistry.client._async_registration import AsyncRegistration
from agniregistry.client._async_session import AsyncSession
from agniregistry.client._async_watch import AsyncWatch
from agniregistry.client._backup import Backup
from agniregistry.client._cache import Cache
from agniregistry.client._calls import BatchResult
from agniregistry.client._registration import Registration
from agniregistry.client._session import Session
from agniregistry.client._sync import Client
from agniregistry.client._watch import Watch
from agniregistry.config import RetryPolicy, Timeout
from agniregistry.identity import Tls

__all__ = [
    "AsyncBackup",
    "AsyncCache",
    "AsyncClient",
    "AsyncRegistration",
    "AsyncSession",
    "AsyncWatch",
    "Backup",
    "BatchResult",
    "Cache",
    "Client",
    "Registration",
    "RetryPolicy",
    "Session",
    "Timeout",
    "Tls",
    "Watch",
]
