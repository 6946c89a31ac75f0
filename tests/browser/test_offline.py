"""What the front ends are made of: hand-written modules that name no address and make no HTML of text.

That no request leaves the machine is asserted at the end of every journey; these read the sources, and need no browser.
"""

from __future__ import annotations

import re
from pathlib import Path

# The name of the SVG language looks like an address; nothing is fetched from it.
ADDRESS = re.compile(r"(?:https?:)?//(?!www\.w3\.org/2000/svg)[\w-]+\.[\w.]+")
DOORS = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|srcdoc"
    r"|\beval\(|new Function|\bimport\b|\bfetch\(|XMLHttpRequest|WebSocket|sendBeacon|@import|url\("
)


def code(file: Path) -> str:
    """A file without its comments, which may say what is not done."""
    return re.sub(
        r"/\*.*?\*/|(?<![:\w])//.*", "", file.read_text(encoding="utf-8"), flags=re.S if file.suffix == ".css" else 0
    )


def test_the_patterns_find_what_they_are_there_to_find() -> None:
    bad = ["el.innerHTML = x", 'import x from "y"', "fetch(u)", "background: url(x)", "eval(x)", "node.outerHTML += x"]
    assert all(DOORS.search(line) for line in bad)
    assert ADDRESS.search('src="//cdn.example.org/x.js"') and ADDRESS.search("https://unpkg.com/x")
    assert not ADDRESS.search("http://www.w3.org/2000/svg") and not DOORS.search(
        "node.textContent = text; // important"
    )


def test_front_ends_name_no_address_and_make_no_html(root: Path) -> None:
    files = sorted(f for f in (root / "widgets").iterdir() if f.suffix in (".js", ".css"))
    assert len(files) >= 15
    found = [
        f"{file.name}: {line.strip()[:100]}"
        for file in files
        for line in code(file).splitlines()
        if ADDRESS.search(line) or DOORS.search(line)
    ]
    assert not found
