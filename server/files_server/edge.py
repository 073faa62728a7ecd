"""Puts the application behind its edge: request log, limits, tokens.

It must not decide anything itself; the order of the layers is all there is here.
"""

from __future__ import annotations

from files_server import auth, logs
from files_server.access import Access
from files_server.asgi import App
from files_server.limits import BodyLimits
from files_server.settings import Settings

KEY_FILE = "url.key"  # in the data folder, 0600: signs the URLs of content


def has_tokens(settings: Settings) -> bool:
    """Whether requests will be asked for a token. Raises auth.TokensError."""
    return auth.Tokens(settings.tokens_file).asked_for


def wrap(app: App, settings: Settings) -> App:
    """`app` behind limits and tokens. The data folder exists. Raises auth.TokensError, OSError."""
    tokens = auth.Tokens(settings.tokens_file, warn=lambda text: logs.event("error", text))
    key = auth.signing_key(settings.data_dir / KEY_FILE) if tokens.asked_for else b""
    signer = auth.Signer(key, settings.url_seconds)
    limited = BodyLimits(app, settings.max_json_bytes, settings.body_idle_seconds)
    return Access(limited, tokens, signer, settings.base_url)


def logged(app: App, settings: Settings, lines: logs.Lines) -> App:
    """`app` with a log line for each request; the outermost layer."""
    return logs.RequestLog(app, settings.log_level, lines.add)
