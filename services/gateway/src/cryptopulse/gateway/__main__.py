"""The gateway as a process; and what operators ask of it."""

from cryptopulse.common.runtime import run_service
from cryptopulse.gateway.bootstrap import administration, build
from cryptopulse.gateway.entrypoints.operator import tools
from cryptopulse.gateway.settings import Settings

if __name__ == "__main__":
    run_service(Settings, build, tools=tools(administration))
