"""What a person sees: a read-only console in the browser, for one network.

:func:`console_app` is an ASGI application over a :class:`ConsoleSource`; the source says what there is to
show and the application only passes it on. It answers GET alone, changes nothing and never sees key
material: its source hands it counts, names and rates. The page is under ``static/``: plain ES modules on
a canvas, with everything they need beside them, so that the console works without the internet.

Not here: who fills the source (``openqci.cli``), and the KMEs' own interfaces (``openqci.services``).
Read next: :mod:`openqci.dashboard.api`, then ``static/main.js``, and
``docs/decisions/0003-console-d3-canvas.md`` for why it is built this way.
"""

from openqci.dashboard.api import ConsoleSource, console_app

__all__ = ["ConsoleSource", "console_app"]
