"""Loading code, model and tools when the server starts."""

import logging
import threading

from constants import Settings
from server.errors import HearthError, InternalError
from server.models.loading import ModelLoader, import_engine
from server.models.resident import ResidentModels
from server.reload.code_loader import CodeLoader
from server.reload.workspace import Workspace

log = logging.getLogger(__name__)


class Autoload:
    """Loads the code of `main`, then the model, then the tools."""

    def __init__(
        self,
        settings: Settings,
        models: ResidentModels,
        model_loader: ModelLoader,
        code_loader: CodeLoader,
        main: Workspace,
    ) -> None:
        self.error: HearthError | None = None
        """Why it failed; None if it did not. Shown while `main` has no tools."""
        self._settings = settings
        self._models = models
        self._model_loader = model_loader
        self._code_loader = code_loader
        self._main = main

    def run(self) -> None:
        """Load everything. A failure is logged and shown, and the server continues. If the code can't be loaded, the
        rest waits until there is code."""
        # In parallel with the template, which imports the packages of workers.
        threading.Thread(target=import_engine, name="imports", daemon=True).start()
        while True:
            self._models.expected = self._settings.MODEL
            try:
                self._load()
                return
            except HearthError as error:
                log.error("loading at the start failed: %s", error.message)
                self.error = error
            except Exception:  # boundary: the thread's end
                log.exception("loading at the start failed")
                self.error = InternalError("Loading at the start failed. The server's log says why.")
            finally:
                self._models.expected = None
            if self._main.live is not None:
                return
            self._main.has_code.wait()
            self.error = None

    def _load(self) -> None:
        if self._main.live is None:
            self._code_loader.reload()
        self._model_loader.load()
        self._code_loader.load_tools()
