"""What every view stands on: a front end of hand-written modules, messages both ways, and a twin where no page listens.

A view keeps its state in Python and is told of every deed of the person by a message (traits would lose fast keys). The front
end says `ready` when it is drawn, also after a reload, and is answered with a snapshot of all that it shows.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from labkit import show
from labkit.errors import LabError

HERE = Path(__file__).parent
Handler = Callable[[dict[str, Any]], None]


class View:
    """A subclass names its `front` (`label` for label.js and label.css), and gives `snapshot`, `handlers` and `static`.

    Messages are dicts with a `kind`. Handlers run under a lock, on whichever thread the kernel calls them; a LabError in one
    becomes an `error` message with its sentence, so that the page says what to do instead of nothing.
    """

    front = ""

    def snapshot(self) -> dict[str, Any]:
        """All that the front end shows, plain JSON values."""
        raise NotImplementedError

    def handlers(self) -> Mapping[str, Handler]:
        """What is done on each kind of message; `ready` is answered already."""
        return {}

    def static(self) -> show.Html:
        """What stands in an executed page, in the report, and wherever nobody can click."""
        raise NotImplementedError

    @cached_property
    def lock(self) -> Any:
        return threading.RLock()

    @cached_property
    def widget(self) -> Any:
        """The anywidget, made when it is first looked at."""
        import anywidget

        kind = type(f"{type(self).__name__}Front", (anywidget.AnyWidget,), sources(self.front))
        made = kind()
        made.on_msg(lambda _, content, buffers: self.hear(content))
        return made

    def say(self, kind: str, **content: Any) -> None:
        """Tell the front end; what is said before it is drawn is lost, and the snapshot makes up for it."""
        self.widget.send({"kind": kind, **content})

    def hear(self, content: Mapping[str, Any]) -> None:
        """One message from the front end. Unknown kinds are ignored: a page may be older than the kernel."""
        kind = content.get("kind")
        with self.lock:
            if kind == "ready":
                self.say("snapshot", **self.snapshot())
                return
            handler = self.handlers().get(str(kind))
            if not handler:
                return
            try:
                handler(dict(content))
            except LabError as error:
                self.say("error", text=str(error), about=content.get("id"))

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None, **kwargs: Any) -> Any:
        if show.attached():
            return self.widget._repr_mimebundle_(include=include, exclude=exclude, **kwargs)
        seen = self.static()
        return {"text/html": seen._repr_html_(), "text/plain": seen.text}


def sources(front: str) -> dict[str, str]:
    """The module and style sheet of a front end: what all share, then its own parts. No build, no address.

    `front` names the parts in order (`cards compare`), the last of which exports; a part may lack a style sheet.
    """
    parts = {"_esm": "js", "_css": "css"}
    return {
        key: "\n".join(
            file.read_text(encoding="utf-8")
            for name in ("shared", *front.split())
            if (file := HERE / f"{name}.{end}").exists() or end == "js"
        )
        for key, end in parts.items()
    }
