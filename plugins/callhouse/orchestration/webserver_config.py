"""Log-ins of Airflow's pages and API. Read by the FAB auth manager: names in capitals count."""

from __future__ import annotations

from callhouse import settings as _settings_module
from callhouse.security import single_sign_on as _sign_on

_settings = _settings_module.load()

# The product's own pages are protected against requests forged on other sites, as by default.
WTF_CSRF_ENABLED = True
AUTH_RATE_LIMITED = True
AUTH_RATE_LIMIT = "5 per second"
RATELIMIT_ENABLED = True

globals().update(_sign_on.configuration(_settings))
if _sign_on.method(_settings) != "password":
    from airflow.providers.fab.auth_manager.security_manager import override as _override

    SECURITY_MANAGER_CLASS = _sign_on.manager(
        _override.FabAirflowSecurityManagerOverride, _settings
    )
