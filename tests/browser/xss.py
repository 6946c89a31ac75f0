"""Text that tries to be more than text, as a model could write it or a person type it. N is the place in the list.

What runs sets `window.__xss`; what loads asks the host xss.invalid, which the harness would see.
"""

from __future__ import annotations

import base64
import re

_RUN = "window.__xss=N"
_INSIDE = base64.b64encode(b"<script>parent.__xss=1</script>").decode()
_TEMPLATES = (
    f"<script>{_RUN}</script>",
    f'<img src="https://xss.invalid/N" onerror="{_RUN}">',
    f'<svg onload="{_RUN}"></svg>',
    f"<svg><script>{_RUN}</script></svg>",
    f'<svg><animate onbegin="{_RUN}" attributeName=x dur=1s></svg>',
    '<iframe srcdoc="<script>parent.__xss=N</script>"></iframe>',
    '<iframe src="javascript:parent.__xss=N"></iframe>',
    f'<a href="javascript:{_RUN}" autofocus onfocus="{_RUN}">N</a>',
    f'<input autofocus onfocus="{_RUN}" value=N>',
    f'<details open ontoggle="{_RUN}"><summary>N</summary></details>',
    "<style>@import 'https://xss.invalid/N.css';</style>",
    '<link rel="stylesheet" href="https://xss.invalid/N">',
    '<meta http-equiv="refresh" content="0;url=https://xss.invalid/N">',
    '<base href="https://xss.invalid/N/">',
    f'<object data="data:text/html;base64,{_INSIDE}">N</object>',
    f'<math><mi xlink:href="javascript:{_RUN}">N</mi></math>',
    f'"><script>{_RUN}</script>',
    f"' onmouseover='{_RUN}' x='",
    f'" onfocus="{_RUN}" autofocus x="',
    f"</textarea></title></style></script><script>{_RUN}</script>",
    f"<!--><script>{_RUN}</script>-->",
    f"]]></script><script>{_RUN}</script><![CDATA[",
    f"{{{{constructor.constructor('{_RUN}')()}}}} {{% raw %}} ${{{_RUN}}} `${{{_RUN}}}` </template>",
    f"[N](javascript:{_RUN}) ![N](https://xss.invalid/N) <https://xss.invalid/N>",
    f"$\\href{{javascript:{_RUN}}}{{N}}$ and \\(\\href{{javascript:{_RUN}}}{{N}}\\)",
    "$$\\require{html}\\style{background:url(https://xss.invalid/N)}{N}$$ \\begin{equation}N\\end{equation}",
    f"&lt;script&gt;{_RUN}&lt;/script&gt; &#60;script&#62; \\u003cscript\\u003e{_RUN}",
    f"\x1b[31mred N\x1b[0m \x1b]8;;javascript:{_RUN}\x07link\x1b]8;;\x07 \x1b[2J",
    "left \u202eN thgir\u202c \u2066N\u2069 \u200bN \ufeffN",
    f"<scr\x00ipt>{_RUN}</scr\x00ipt><im\x00g src=x onerror={_RUN}>",
    "N" + "W" * 2000,
    "__proto__ N constructor",
)
PAYLOADS = tuple(t.replace("N", str(100 + i)) for i, t in enumerate(_TEMPLATES))

# What stands in an element that should hold text alone: anything that could run, load, lead away, or is no longer the text.
# JupyterLab makes links of addresses in printed text; they say where they lead.
OFFENDERS = """root => [...root.querySelectorAll('*')].filter(node =>
  node.tagName !== 'A' || node.rel !== 'noopener' || node.getAttribute('href') !== node.textContent).filter(node =>
  /^(script|iframe|object|embed|link|meta|base|frame|math|animate)$/i.test(node.tagName)
  || [...node.attributes].some(a => /^on/i.test(a.name) || /^\\s*javascript:/i.test(a.value)
    || /^(src|srcset|srcdoc|href|xlink:href|style|data|action|formaction|poster)$/i.test(a.name) && /xss/.test(a.value))
).map(node => node.outerHTML.slice(0, 200))"""

# All that can be read in an element: its text, and what stands in its fields.
READ = """root => [root.textContent, ...[...root.querySelectorAll('input, textarea')].map(field => field.value)].join('\\n')"""


def bare(text: str) -> str:
    """Text without what a page may show otherwise: blanks and their stand-ins, and characters that cannot be seen."""
    return re.sub("[\\s\\x00-\\x20\x7f·↵→∅\u200b\ufeff\ufffd]+", "", text)


def seen(read: str) -> list[int]:
    """The places of the payloads that can be read in a text, each whole."""
    read = bare(read)
    return [i for i, payload in enumerate(PAYLOADS) if bare(payload) in read]
