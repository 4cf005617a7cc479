"""The page of an alert in Superset, where whoever was told of it takes it up.

Only the button acknowledges: programs that look at links in mail would do so, too.
"""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

from callhouse.alerts import link, messages
from callhouse.bi import theme
from callhouse.bi.superset_access import personal_connection
from callhouse.errors import CallhouseError
from callhouse.settings import Settings

COLUMNS = (
    "alert_id", "rule", "metric", "scope_type", "scope_id", "severity", "comparison", "fire_at",
    "value", "reason", "owner", "breached_at", "opened_at", "acknowledged_at", "acknowledged_by",
    "resolved_at", "resolved_value", "resolution",
)  # fmt: skip
COLOURS = {"info": theme.ANSWERED, "warning": theme.ABANDONED, "critical": theme.BREACH}
PAGE = """<!doctype html>
<html lang="{{ language }}"><head><meta charset="utf-8"><title>{{ title }}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body { margin: 0; background: #f5f7f9; color: {{ ink }}; font: 16px/1.5 Inter, "Noto Sans SC",
  "PingFang SC", "Microsoft YaHei", Helvetica, Arial, sans-serif; }
main { max-width: 640px; margin: 48px auto; padding: 32px; background: #fff; border-radius: 8px;
  border-top: 6px solid {{ colour }}; box-shadow: 0 1px 4px rgba(0, 0, 0, .12); }
h1 { font-size: 22px; line-height: 1.3; margin: 16px 0; }
p { margin: 8px 0; }
.state { margin-top: 24px; font-weight: 600; }
button { margin-top: 8px; padding: 12px 28px; border: 0; border-radius: 6px; font: inherit;
  font-weight: 600; color: #fff; background: {{ primary }}; cursor: pointer; }
footer { margin-top: 24px; color: #5b6773; font-size: 13px; }
</style></head><body><main>
<img src="{{ logo }}" alt="Callhouse" height="28">
<h1>{{ title }}</h1>
{% for line in lines %}<p>{{ line }}</p>
{% endfor %}<p class="state">{{ state }}</p>
{% if token %}<form method="post"><input type="hidden" name="csrf_token" value="{{ token }}">
<button type="submit">{{ button }}</button></form>{% endif %}
{% if rule %}<footer>{{ rule }}</footer>{% endif %}
</main></body></html>
"""


def serve(app: Any, settings: Settings) -> None:
    """Add `/alerts/<token>` to the application. Row security decides who sees it."""

    @app.route(f"{link.ADDRESS}<token>", methods=["GET", "POST"])  # type: ignore[untyped-decorator]
    def alert_page(token: str) -> Any:
        from flask import abort, redirect, request
        from flask_login import current_user

        alert_id = link.alert_of(settings, token)
        if alert_id is None:
            abort(404)
        if not current_user.is_authenticated:
            return redirect(f"/login/?next={link.ADDRESS}{token}")
        person = current_user.username
        try:
            with personal_connection(settings, person) as connection:
                alert = _alert(connection, alert_id)
                if alert and request.method == "POST":
                    # What was read ends first: personal logins begin their work read-only.
                    connection.rollback()
                    connection.set_session(readonly=False)
                    with connection.cursor() as cursor:
                        cursor.execute("select sec.acknowledge_alert(%s)", [alert_id])
                    alert = _alert(connection, alert_id)
        except CallhouseError:
            alert = None
        return _page(settings, alert, person)


def _alert(connection: Any, alert_id: int) -> dict[str, Any] | None:
    with connection.cursor() as cursor:
        cursor.execute(
            f"select {', '.join(COLUMNS)} from bi.fct_alert_events where alert_id = %s",  # noqa: S608
            [alert_id],
        )
        row = cursor.fetchone()
    return dict(zip(COLUMNS, row, strict=True)) if row else None


def _page(settings: Settings, alert: dict[str, Any] | None, person: str) -> Any:
    from flask import make_response, render_template_string
    from flask_wtf.csrf import generate_csrf

    words = messages.WORDS[settings.language]
    shown: dict[str, Any] = {
        "language": settings.language, "ink": theme.INK, "primary": theme.ANSWERED,
        "logo": theme.LOGO, "button": words["button"],
    }  # fmt: skip
    if alert is None:
        text = render_template_string(
            PAGE, **shown, colour=theme.CLOSED, title=words["fired"], state=words["not_yours"]
        )
        return make_response(text, 403)
    is_open = alert["acknowledged_at"] is None and alert["resolved_at"] is None
    if alert["acknowledged_by"] == person:
        state = words["done"]
    elif alert["acknowledged_by"]:
        at = alert["acknowledged_at"].astimezone(ZoneInfo(settings.time_zone))
        state = words["taken"].format(
            person=alert["acknowledged_by"], at=at.strftime("%Y-%m-%d %H:%M:%S")
        )
    else:
        state = words["untaken" if is_open else "late"]
    kind = "resolved" if alert["resolved_at"] else "fired"
    text = render_template_string(
        PAGE,
        **shown,
        colour=theme.GOOD if alert["resolved_at"] else COLOURS[alert["severity"]],
        title=messages.title(settings, kind, alert),
        lines=[
            *messages.facts(settings, alert),
            words["owner"].format(owner=alert["owner"] or "–"),
            words["why"].format(reason=alert["reason"]),
        ],
        state=state,
        token=generate_csrf() if is_open else None,
        rule=words["key"].format(rule=alert["rule"], key=f"alert {alert['alert_id']}"),
    )
    return make_response(text)
