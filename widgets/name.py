"""Who are you? A name of one's own choice, asked before the view that works under it is shown.

For pages that several people open. The name is no password: it says whose votes they are, and whoever can open the page can type
any name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from labkit import show
from widgets.view import Handler, View


class NameView(View):
    """`opened(name)` makes the view that the person works in, and raises LabError for a name that cannot be."""

    front = "name"

    def __init__(self, opened: Callable[[str], View]) -> None:
        self.opened = opened
        self.name = ""
        self.view: View | None = None

    @cached_property
    def box(self) -> Any:
        """The question, and below it the view once there is a name."""
        import ipywidgets

        return ipywidgets.VBox([self.widget])

    def snapshot(self) -> dict[str, Any]:
        return {"name": self.name}

    def handlers(self) -> Mapping[str, Handler]:
        return {"name": self._named, "leave": self._leave}

    def _named(self, message: dict[str, Any]) -> None:
        name = " ".join(str(message.get("name") or "").split())
        self.view, self.name = self.opened(name), name
        self.box.children = (self.widget, self.view.widget)
        self.say("snapshot", **self.snapshot())

    def _leave(self, message: dict[str, Any]) -> None:
        self.view, self.name = None, ""
        self.box.children = (self.widget,)
        self.say("snapshot", **self.snapshot())

    def static(self) -> show.Html:
        said = "This page asks for a name first: open it with labkit label."
        return show.Html(f"<p>{show.esc(said)}</p>", said)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None, **kwargs: Any) -> Any:
        if show.attached():
            return self.box._repr_mimebundle_(include=include, exclude=exclude, **kwargs)
        return super()._repr_mimebundle_(include=include, exclude=exclude, **kwargs)
