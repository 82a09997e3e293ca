"""A server without the packages of documents says which ones are missing."""

import pytest

from server.documents import packages
from server.errors import DocumentsUnavailableError


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "NEEDED", {"json": "json", "no_such_module": "such-a-package"})
    with pytest.raises(
        DocumentsUnavailableError, match=r"such-a-package\. pip install -r requirements-documents\.txt"
    ):
        packages.require()
