"""What stands before every console request: the Host check, and the headers of every answer.

Not a login. The console shows no secrets and listens on loopback; what is left to stop is a page of
another origin that reads it through the user's browser (DNS rebinding), frames it, or injects into it.
"""

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    # after an upgrade the page must fit the interface it talks to; files still revalidate by ETag
    "Cache-Control": "no-cache",
}


class LoopbackGuard:
    """ASGI middleware: answers only to loopback names and puts the security headers on every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it with 421 when its Host is not this machine."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(SECURITY_HEADERS)
            await send(message)

        host = Headers(scope=scope).get("host", "")
        app = self._app if host_name(host) in LOOPBACK_NAMES else _REFUSAL
        await app(scope, receive, send_guarded)


def host_name(host_header: str) -> str:
    """Return the name in a Host header, without its port; an IPv6 address keeps its brackets.

    >>> host_name("[::1]:8080"), host_name("LOCALHOST:80"), host_name("localhost.evil.example")
    ('[::1]', 'localhost', 'localhost.evil.example')
    """
    name, separator, port = host_header.strip().lower().rpartition(":")
    return name if separator and port.isdigit() else host_header.strip().lower()


_REFUSAL = PlainTextResponse("The console answers on localhost, 127.0.0.1 and [::1] only.\n", 421)
