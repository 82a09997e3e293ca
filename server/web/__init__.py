"""The pages: the server in a browser.

Rule: a page is a template (`templates/`) for its frame and one ES module (`static/pages/`) that fills it from the
JSON routes, which scripts use too. The browser makes elements from text and never from markup: `static/dom.js`.
Nothing is loaded from another origin, and nothing has to be built, but the editor: `static/editor/`.
"""
