"""`python -m cryptopulse.alerts`: run, check, healthcheck, migrate."""

from cryptopulse.alerts.bootstrap import build
from cryptopulse.alerts.settings import AlertsSettings
from cryptopulse.common.runtime import run_service

if __name__ == "__main__":
    run_service(AlertsSettings, build)
