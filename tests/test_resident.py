"""The slot of the resident model: who waits for whom. What is built here is no model, which takes no time."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from server.errors import ModelLoadError, ModelNotFoundError, ModelNotLoadedError, ShuttingDownError
from server.resident import LAST_CHECK, ModelRequest, ModelSlot, ResidentModel

SECONDS = 20


def request(name: str) -> ModelRequest:
    return ModelRequest(name, load_in_8bit=None, device_map="auto", dtype="auto", recipe="")


class Recipe:
    """Builds nothing, as slowly as it is told to, and keeps a history."""

    def __init__(self) -> None:
        self.history: list[str] = []
        self.checked = threading.Event()
        self.may_finish = threading.Event()
        self.may_finish.set()
        self.error_in_check: BaseException | None = None
        self.error_in_weights: BaseException | None = None

    def __call__(self, model: ResidentModel, report: Callable[[str, int, int], None]) -> None:
        self.history.append(f"check {model.name}")
        self.checked.set()
        if self.error_in_check is not None:
            raise self.error_in_check
        report(LAST_CHECK, 1, 1)
        self.history.append(f"weights {model.name}")
        assert self.may_finish.wait(SECONDS)
        if self.error_in_weights is not None:
            raise self.error_in_weights
        model.device = "cpu"


@pytest.fixture
def recipe() -> Recipe:
    return Recipe()


def names(slot: ModelSlot) -> tuple[str, str] | None:
    shown = slot.shown
    return None if shown is None else (shown.name, shown.state)


def test_a_model_comes_and_goes(recipe: Recipe) -> None:
    slot = ModelSlot()
    with pytest.raises(ModelNotLoadedError, match="POST /load_model"), slot.use():
        pass
    model = slot.load(request("one"), recipe)
    assert names(slot) == ("one", "ready")
    with slot.use() as used:
        assert used is model
    slot.unload()
    assert slot.shown is None
    with pytest.raises(ModelNotLoadedError), slot.use():
        pass


def test_the_same_model_is_built_once(recipe: Recipe) -> None:
    slot = ModelSlot()
    recipe.may_finish.clear()
    with ThreadPoolExecutor(8) as pool:
        loads = [pool.submit(slot.load, request("one"), recipe) for _ in range(8)]
        assert recipe.checked.wait(SECONDS)
        recipe.may_finish.set()
        models = {load.result(SECONDS) for load in loads}
    assert len(models) == 1
    assert slot.load(request("one"), recipe) in models
    assert recipe.history == ["check one", "weights one"]


def test_those_who_wait_for_one_load_share_its_failure(recipe: Recipe) -> None:
    slot = ModelSlot()
    recipe.may_finish.clear()
    recipe.error_in_weights = ValueError("no such layer")
    with ThreadPoolExecutor(4) as pool:
        loads = [pool.submit(slot.load, request("one"), recipe) for _ in range(4)]
        assert recipe.checked.wait(SECONDS)
        recipe.may_finish.set()
        errors = [load.exception(SECONDS) for load in loads]
    assert all(isinstance(error, ModelLoadError) and "no such layer" in str(error) for error in errors)
    assert names(slot) == ("one", "failed")
    recipe.error_in_weights = None
    slot.load(request("one"), recipe)
    assert names(slot) == ("one", "ready")


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), RecursionError("deep"), MemoryError()])
def test_whatever_a_recipe_raises_is_an_answer(recipe: Recipe, error: BaseException) -> None:
    slot = ModelSlot()
    recipe.error_in_check = error
    with pytest.raises(ModelLoadError, match=type(error).__name__):
        slot.load(request("one"), recipe)


def test_a_model_is_replaced_when_nobody_uses_it(recipe: Recipe) -> None:
    slot = ModelSlot()
    slot.load(request("one"), Recipe())
    with ThreadPoolExecutor(1) as pool:
        with slot.use() as old:
            load = pool.submit(slot.load, request("two"), recipe)
            assert recipe.checked.wait(SECONDS)
            # Its user keeps the old model, and nobody new gets it once the new one needs its place.
            with slot._changed:
                assert slot._changed.wait_for(lambda: old.leaving, SECONDS) or old.leaving
            assert recipe.history == ["check two"]
            assert names(slot) == ("two", "loading")
            with pytest.raises(ModelNotLoadedError, match="two is loading"), slot.use():
                pass
        load.result(SECONDS)
    assert recipe.history == ["check two", "weights two"]
    assert names(slot) == ("two", "ready")


def test_a_name_that_is_wrong_does_not_cost_the_model_that_is_there(recipe: Recipe) -> None:
    slot = ModelSlot()
    slot.load(request("one"), Recipe())
    recipe.error_in_check = ModelNotFoundError("There is no model two.")
    with pytest.raises(ModelNotFoundError):
        slot.load(request("two"), recipe)
    assert names(slot) == ("one", "ready")
    with slot.use() as model:
        assert model.name == "one"


def test_another_recipe_is_another_model(recipe: Recipe) -> None:
    slot = ModelSlot()
    slot.load(request("one"), recipe)
    slot.load(ModelRequest("one", None, "auto", "auto", recipe="changed"), recipe)
    assert recipe.history == ["check one", "weights one"] * 2


def test_unloading_waits_for_those_who_use_the_model(recipe: Recipe) -> None:
    slot = ModelSlot()
    slot.load(request("one"), recipe)
    with ThreadPoolExecutor(1) as pool:
        with slot.use() as model:
            unload = pool.submit(slot.unload)
            with slot._changed:
                assert slot._changed.wait_for(lambda: model.leaving, SECONDS) or model.leaving
            assert not unload.done()
            assert slot.shown is model
        unload.result(SECONDS)
    assert slot.shown is None


def test_nobody_waits_for_a_load_at_the_end(recipe: Recipe) -> None:
    slot = ModelSlot()
    recipe.may_finish.clear()
    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(slot.load, request("one"), recipe)
        assert recipe.checked.wait(SECONDS)
        slot.close()
        assert isinstance(load.exception(SECONDS), ShuttingDownError)
    recipe.may_finish.set()
    with pytest.raises(ShuttingDownError):
        slot.load(request("two"), recipe)
