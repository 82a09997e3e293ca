"""Markdown of models and tools as HTML that can't act."""

import nh3
from markdown_it import MarkdownIt

TAGS = {
    "a", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre",
    "s", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul",
}  # fmt: skip
"""No pictures: one from elsewhere would tell its server who reads what, and when."""
LONGEST = 200_000
"""Maximum length in characters. A longer text is shown as it is."""

_PARSER = MarkdownIt("commonmark", {"html": False, "linkify": False}).enable(["table", "strikethrough"])


def to_html(text: str) -> str | None:
    """The text as HTML of a few tags, without scripts, styles, pictures or handlers. Links lead to http and https
    only, in a new tab, and send no referrer. None: the text is too long."""
    if len(text) > LONGEST:
        return None
    return nh3.clean(
        _PARSER.render(text),
        tags=TAGS,
        attributes={"a": {"href", "title"}, "ol": {"start"}},
        url_schemes={"http", "https"},
        link_rel="noopener noreferrer nofollow",
        set_tag_attribute_values={"a": {"target": "_blank"}},
    )
