"""What is running: the version of the package, and the commit and time that the image was built from."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from dataclasses import dataclass

from cryptopulse.common.telemetry.metrics import gauge


@dataclass(frozen=True, slots=True)
class Version:
    """The answer of `/version` and `--version`; commit and build time come from the image's build arguments."""

    service: str
    version: str
    commit: str
    built_at: str
    python: str

    def as_dict(self) -> dict[str, str]:
        """As `/version` answers it."""
        return {
            "service": self.service,
            "version": self.version,
            "commit": self.commit,
            "built_at": self.built_at,
            "python": self.python,
        }

    def __str__(self) -> str:
        return f"{self.service} {self.version} (commit {self.commit}, built {self.built_at}, Python {self.python})"


def version_of(service: str) -> Version:
    """Look up what is running; `unknown` where the package or the image does not say."""
    try:
        version = importlib.metadata.version(f"cryptopulse-{service}")
    except importlib.metadata.PackageNotFoundError:
        version = "unknown"
    return Version(
        service=service,
        version=version,
        commit=os.environ.get("CRYPTOPULSE_COMMIT", "") or "unknown",
        built_at=os.environ.get("CRYPTOPULSE_BUILT_AT", "") or "unknown",
        python=platform.python_version(),
    )


def publish(version: Version) -> None:
    """Show the version as a metric."""
    gauge(
        "cryptopulse_build_info", "What is running; always 1.", ("service", "version", "commit", "python")
    ).labels(version.service, version.version, version.commit, version.python).set(1)
