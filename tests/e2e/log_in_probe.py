"""Logs people in to one product's own application, as configured by the environment.

Run by that product's Python: `log_in_probe.py superset|airflow`, with {"method", "attempts"} on
stdin; prints for each attempt who was in afterwards, or null.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any
from urllib.request import HTTPRedirectHandler, Request, build_opener


class Stay(HTTPRedirectHandler):
    """Redirects are answers here."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Follow none."""


def application(product: str) -> Any:
    """The Flask application that serves the log-in page."""
    if product == "superset":
        from superset.app import create_app
    else:
        from airflow.providers.fab.www.app import create_app

        return create_app(enable_plugins=False)
    return create_app()


def attempt(app: Any, method: str, one: dict[str, str]) -> str | None:
    """Who is in after an attempt: by the provider as `one["person"]`, or by the form."""
    from flask_login import current_user

    with app.test_client() as client:
        if method == "oidc":
            sent = client.get("/login/sso")
            # The person's browser at the provider, who are logged in there already.
            request = Request(sent.location + f"&as={one['person']}")
            try:
                build_opener(Stay).open(request, timeout=10)
                raise SystemExit("the provider sent nobody back")
            except OSError as answer:
                back = answer.headers["Location"]  # type: ignore[attr-defined]
            if one.get("forged"):
                back = re.sub(r"state=[^&]*", "state=forged", back)
            client.get(back)
        else:
            page = client.get("/login/").get_data(as_text=True)
            token = re.search(r'csrf_token[^>]*value="([^"]+)"|csrf_token&#34;: &#34;([^&]+)', page)
            form = {"username": one["person"], "password": one["password"]}
            if token:
                form["csrf_token"] = token[1] or token[2]
            client.post("/login/", data=form)
        client.get("/login/")  # a request of its own, to see whom the session names
        return str(current_user.username) if current_user.is_authenticated else None


def main() -> None:
    """Answers as one line of JSON, the last that is printed."""
    job = json.load(sys.stdin)
    app = application(sys.argv[1])
    app.config["WTF_CSRF_ENABLED"] = False  # the form's own protection is not what is looked at
    found = [attempt(app, job["method"], one) for one in job["attempts"]]
    sys.stdout.write("\n" + json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
