"""Superset's configuration. Named by SUPERSET_CONFIG_PATH; runs in the Superset environment.

Everything that differs between instances comes from `callhouse.settings`; nothing is written
into the metadata database that would let a reader of it reach the warehouse: the connection
"Callhouse" is stored without password, host or person, and `DB_CONNECTION_MUTATOR` fills them in.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "plugins"))

from callhouse import settings as _callhouse_settings
from callhouse.bi import alert_pages as _alert_pages
from callhouse.bi import audit_pages as _audit_pages
from callhouse.bi import periods as _periods
from callhouse.bi import superset_access as _access
from callhouse.bi import superset_trail as _trail
from callhouse.bi import theme as _theme
from callhouse.bi import words as _words
from callhouse.security import single_sign_on as _sign_on

_settings = _callhouse_settings.load()
_home = _settings.home / "superset"
_home.mkdir(mode=0o700, parents=True, exist_ok=True)

_metadata = (
    f"superset:{quote(_settings.secret('superset_password'), safe='')}"
    f"@{_settings.database_host}:{_settings.postgres_port}/superset"
)

# ---------------------------------------------------------------- metadata, keys, sessions
SECRET_KEY = _settings.secret("superset_secret_key")
GUEST_TOKEN_JWT_SECRET = _settings.secret("superset_guest_key")
GLOBAL_ASYNC_QUERIES_JWT_SECRET = _settings.secret("superset_async_key")
SQLALCHEMY_DATABASE_URI = f"postgresql+psycopg2://{_metadata}"
# No ping before each statement: it costs as much as the statement, and a restarted server is
# noticed by the pool anyway.
SQLALCHEMY_ENGINE_OPTIONS = {"pool_size": 5, "max_overflow": 10, "pool_recycle": 1800}
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_NAME = f"callhouse_{_settings.superset_port}"
SESSION_COOKIE_SECURE = _settings.environment.get("CALLHOUSE_HTTPS") == "1"
ENABLE_PROXY_FIX = SESSION_COOKIE_SECURE
PERMANENT_SESSION_LIFETIME = timedelta(hours=12)

# ---------------------------------------------------------------- who sees what
# One Postgres login per person: row security then holds for charts, drill, SQL and exports alike.
DB_CONNECTION_MUTATOR = _access.connection_mutator(_settings)
QUERY_LOGGER = _trail.log_query
globals().update(_sign_on.configuration(_settings))
if _sign_on.method(_settings) != "password":
    from superset.security import SupersetSecurityManager as _SupersetSecurityManager

    CUSTOM_SECURITY_MANAGER = _sign_on.manager(_SupersetSecurityManager, _settings)
PUBLIC_ROLE_LIKE = None
AUTH_RATE_LIMITED = True
RATELIMIT_ENABLED = True
RATELIMIT_APPLICATION = "500 per second"
AUTH_RATE_LIMIT = "5 per second"
FAB_API_SWAGGER_UI = False
PREVENT_UNSAFE_DB_CONNECTIONS = True
ALLOWED_EXTENSIONS: set[str] = set()
ALLOWED_USER_CSV_SCHEMA_FUNC = _access.no_uploads
HTML_SANITIZATION = True

# ---------------------------------------------------------------- nothing leaves the machine
TALISMAN_ENABLED = True
TALISMAN_CONFIG = {
    "content_security_policy": {
        "base-uri": ["'self'"],
        "default-src": ["'self'"],
        "img-src": ["'self'", "blob:", "data:"],
        "worker-src": ["'self'", "blob:"],
        "connect-src": ["'self'"],
        "object-src": "'none'",
        "style-src": ["'self'", "'unsafe-inline'"],
        "font-src": ["'self'"],
        "script-src": ["'self'", "'strict-dynamic'"],
        "frame-ancestors": ["'self'"],
    },
    "content_security_policy_nonce_in": ["script-src"],
    "force_https": False,
    "session_cookie_secure": SESSION_COOKIE_SECURE,
}
ENABLE_CORS = False
THEME_FONT_URL_ALLOWED_DOMAINS: list[str] = []

# ---------------------------------------------------------------- features
FEATURE_FLAGS = {
    "DASHBOARD_RBAC": False,
    "DRILL_TO_DETAIL": True,
    "DRILL_BY": True,
    "ALERT_REPORTS": False,
    "DYNAMIC_PLUGINS": False,
    "EMBEDDED_SUPERSET": False,
    "ENABLE_TEMPLATE_PROCESSING": False,
    "ALLOW_ADHOC_SUBQUERY": False,
    "TAGGING_SYSTEM": False,
    # Off-screen tiles must be there for exports and for people who scroll quickly.
    "DASHBOARD_VIRTUALIZATION": False,
}
ROW_LIMIT = 10_000
SAMPLES_ROW_LIMIT = 1_000
SQL_MAX_ROW = 50_000
DISPLAY_MAX_ROW = 10_000
TABLE_VIZ_MAX_ROW_SERVER = 50_000
FILTER_SELECT_ROW_LIMIT = 1_000
SUPERSET_WEBSERVER_TIMEOUT = 60
SQLLAB_TIMEOUT = 30
DEFAULT_TIME_FILTER = "No filter"
# "fetch" lets twenty viewers share the cache; the default "force" computes every tile each time.
DASHBOARD_AUTO_REFRESH_MODE = "fetch"

# ---------------------------------------------------------------- caches
# Keys carry the person (`per_user_caching` in the database's extra): rows never cross people.
_file_cache = {
    "CACHE_TYPE": "FileSystemCache",
    "CACHE_THRESHOLD": 5_000,
    "CACHE_OPTIONS": {"mode": 0o600},
}
CACHE_CONFIG = {
    **_file_cache,
    "CACHE_DIR": str(_home / "cache" / "metadata"),
    "CACHE_DEFAULT_TIMEOUT": 300,
    "CACHE_KEY_PREFIX": "metadata_",
}
DATA_CACHE_CONFIG = {
    **_file_cache,
    "CACHE_DIR": str(_home / "cache" / "data"),
    "CACHE_DEFAULT_TIMEOUT": 60,
    "CACHE_KEY_PREFIX": "data_",
}


# ---------------------------------------------------------------- worker
class CeleryConfig:
    """Broker and results in the metadata database: no further service to run."""

    broker_url = f"sqla+postgresql+psycopg2://{_metadata}"
    result_backend = f"db+postgresql+psycopg2://{_metadata}"
    imports = ("superset.sql_lab", "superset.tasks.scheduler", "superset.tasks.cache")
    worker_prefetch_multiplier = 1
    task_acks_late = False
    broker_connection_retry_on_startup = True
    beat_schedule_filename = str(_home / "celerybeat-schedule")
    # How long the history of SQL Lab is kept is told in callhouse.security.retention.
    beat_schedule: ClassVar[dict[str, Any]] = {}


CELERY_CONFIG = CeleryConfig

# ---------------------------------------------------------------- language and looks
LANGUAGES = {
    "en": {"flag": "gb", "name": "English"},
    "zh": {"flag": "cn", "name": "中文"},
}
BABEL_DEFAULT_LOCALE = _settings.language
COMMON_BOOTSTRAP_OVERRIDES_FUNC = _words.bootstrap


def FLASK_APP_MUTATOR(app: Any) -> None:  # noqa: N802  # Superset's name
    """What is added to Superset: words, periods, pages of audits and alerts, the audit trail."""
    _words.mend(app)
    _periods.install(_settings)
    _audit_pages.serve(app, _settings)
    _alert_pages.serve(app, _settings)
    _trail.install(app, _settings)


APP_NAME = "Callhouse"
APP_ICON = _theme.LOGO
THEME_DEFAULT = _theme.DEFAULT
THEME_DARK = _theme.DARK
EXTRA_CATEGORICAL_COLOR_SCHEMES = _theme.CATEGORICAL_SCHEMES
EXTRA_SEQUENTIAL_COLOR_SCHEMES = _theme.SEQUENTIAL_SCHEMES
ENVIRONMENT_TAG_CONFIG: dict[str, Any] = {"variable": "SUPERSET_ENV", "values": {}}
