"""The gateway as a process."""

from cryptopulse.common.runtime import run_service
from cryptopulse.gateway.bootstrap import build
from cryptopulse.gateway.settings import Settings

if __name__ == "__main__":
    run_service(Settings, build)
