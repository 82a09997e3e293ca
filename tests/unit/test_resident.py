"""The resident models: who waits for whom. What is built here is no model, which takes no time."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from server.errors import (
    ModelAsleepError,
    ModelLoadError,
    ModelNameTakenError,
    ModelNotFoundError,
    ModelNotLoadedError,
    ModelNotResidentError,
    OutOfMemoryError,
    ShuttingDownError,
)
from server.models.resident import LAST_CHECK, ModelRequest, ResidentModel, ResidentModels

SECONDS = 20


def request(name: str, recipe: str = "") -> ModelRequest:
    return ModelRequest(
        name, load_in_8bit=None, quantizer="bitsandbytes", device_map="auto", dtype="auto", recipe=recipe
    )


class Engine:
    """As much of an engine as is called here, with a history in common with its recipe."""

    def __init__(self, name: str, history: list[str]) -> None:
        self.name = name
        self.history = history
        self.error: Exception | None = None
        self.shares_with = 0
        self.when_closed: Callable[[], None] = lambda: None

    def share_kv_memory(self, engines: int) -> None:
        self.shares_with = engines

    def _did(self, what: str) -> None:
        if self.error is not None:
            raise self.error
        self.history.append(f"{what} {self.name}")

    def sleep(self) -> str:
        self._did("sleep")
        return f"bytes of {self.name}"

    def wake(self) -> None:
        self._did("wake")

    def close(self) -> None:
        self.when_closed()
        self._did("close")


class Recipe:
    """Builds nothing, as slowly as the test wants, and keeps a history."""

    def __init__(self) -> None:
        self.history: list[str] = []
        self.engines: dict[str, Any] = {}
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
        engine: Any = Engine(model.name, self.history)
        model.engine = self.engines[model.name] = engine


@pytest.fixture
def recipe() -> Recipe:
    return Recipe()


@pytest.fixture
def models() -> ResidentModels:
    return ResidentModels()


def shown(models: ResidentModels) -> list[tuple[str, str]]:
    return [(model.name, model.state) for model in models.all]


def default(models: ResidentModels) -> tuple[str, str] | None:
    return next(iter(shown(models)), None)


def use(models: ResidentModels, which: ResidentModel | str | None = None) -> str:
    with models.use(which) as model:
        return model.name


def load_both(models: ResidentModels, recipe: Recipe) -> None:
    models.load(request("one"), recipe)
    models.load(request("two"), recipe, replace=False)


def wait_until(models: ResidentModels, met: Callable[[], bool]) -> None:
    with models._changed:
        assert models._changed.wait_for(met, SECONDS)


def waits_for_its_users(pool: ThreadPoolExecutor, models: ResidentModels, work: Callable[[], Any]) -> Future[Any]:
    """`work`, begun while somebody uses the model one; it has come so far that it waits for that."""
    with models.use("one") as model:
        future = pool.submit(work)
        wait_until(models, lambda: model.leaving or model.state == "asleep")
        assert not future.done()
    return future


# One model


def test_a_model_comes_and_goes(models: ResidentModels, recipe: Recipe) -> None:
    with pytest.raises(ModelNotLoadedError, match="POST /load_model"):
        use(models)
    model = models.load(request("one"), recipe)
    assert shown(models) == [("one", "ready")] and default(models) == ("one", "ready")
    with models.use() as used:
        assert used is model
    models.unload()
    assert models.all == []
    assert recipe.history == ["check one", "weights one", "close one"]
    with pytest.raises(ModelNotLoadedError):
        use(models)


def test_the_same_model_is_built_once(models: ResidentModels, recipe: Recipe) -> None:
    recipe.may_finish.clear()
    with ThreadPoolExecutor(8) as pool:
        loads = [pool.submit(models.load, request("one"), recipe) for _ in range(8)]
        assert recipe.checked.wait(SECONDS)
        recipe.may_finish.set()
        loaded = {load.result(SECONDS) for load in loads}
    assert len(loaded) == 1
    for replace in (True, False):
        assert models.load(request("one"), recipe, replace=replace) in loaded
    assert recipe.history == ["check one", "weights one"]


def test_those_who_wait_for_one_load_share_its_failure(models: ResidentModels, recipe: Recipe) -> None:
    recipe.may_finish.clear()
    recipe.error_in_weights = ValueError("no such layer")
    with ThreadPoolExecutor(4) as pool:
        loads = [pool.submit(models.load, request("one"), recipe) for _ in range(4)]
        assert recipe.checked.wait(SECONDS)
        recipe.may_finish.set()
        errors = [load.exception(SECONDS) for load in loads]
    assert all(isinstance(error, ModelLoadError) and "no such layer" in str(error) for error in errors)
    assert shown(models) == [("one", "failed")]
    for which in (None, "one"):
        with pytest.raises(ModelNotLoadedError, match="no such layer"):
            use(models, which)
    recipe.error_in_weights = None
    models.load(request("one"), recipe)
    assert shown(models) == [("one", "ready")]


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), RecursionError("deep")])
def test_whatever_a_recipe_raises_is_an_answer(models: ResidentModels, recipe: Recipe, error: BaseException) -> None:
    recipe.error_in_check = error
    with pytest.raises(ModelLoadError, match=type(error).__name__):
        models.load(request("one"), recipe)


def test_no_memory_is_an_answer_of_its_own(models: ResidentModels, recipe: Recipe) -> None:
    recipe.error_in_weights = MemoryError()
    with pytest.raises(OutOfMemoryError, match="one"):
        models.load(request("one"), recipe)


def test_a_model_is_replaced_when_nobody_uses_it(models: ResidentModels, recipe: Recipe) -> None:
    models.load(request("one"), Recipe())
    with ThreadPoolExecutor(1) as pool:
        with models.use() as old:
            load = pool.submit(models.load, request("two"), recipe)
            # Its user keeps the old model, and nobody new gets it once the new one needs its place.
            wait_until(models, lambda: old.leaving)
            assert recipe.history == ["check two"]
            assert shown(models) == [("two", "loading"), ("one", "ready")]
            for which in (None, "two"):
                with pytest.raises(ModelNotLoadedError, match="two is loading"):
                    use(models, which)
        load.result(SECONDS)
    assert recipe.history == ["check two", "weights two"]
    assert shown(models) == [("two", "ready")]


def test_questions_go_on_with_the_old_model_while_the_new_one_is_checked(
    models: ResidentModels, recipe: Recipe
) -> None:
    models.load(request("one"), Recipe())
    checking, may_go_on = threading.Event(), threading.Event()

    def slow(model: ResidentModel, report: Callable[[str, int, int], None]) -> None:
        checking.set()
        assert may_go_on.wait(SECONDS)
        recipe(model, report)

    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(models.load, request("two"), slow)
        assert checking.wait(SECONDS)
        assert default(models) == ("two", "loading")
        assert use(models) == use(models, "one") == "one"
        with pytest.raises(ModelNotLoadedError, match="two is loading"):
            use(models, "two")
        may_go_on.set()
        load.result(SECONDS)
    assert use(models) == "two"


def test_a_name_that_is_wrong_does_not_cost_the_model_that_is_there(models: ResidentModels, recipe: Recipe) -> None:
    models.load(request("one"), Recipe())
    recipe.error_in_check = ModelNotFoundError("There is no model two.")
    with pytest.raises(ModelNotFoundError):
        models.load(request("two"), recipe)
    assert shown(models) == [("one", "ready")]
    assert use(models) == "one"


def test_another_recipe_is_another_model(models: ResidentModels, recipe: Recipe) -> None:
    models.load(request("one"), recipe)
    models.load(request("one", recipe="changed"), recipe)
    assert recipe.history == ["check one", "weights one", "check one", "close one", "weights one"]


def test_unloading_waits_for_those_who_use_the_model(models: ResidentModels, recipe: Recipe) -> None:
    models.load(request("one"), recipe)
    with ThreadPoolExecutor(1) as pool:
        waits_for_its_users(pool, models, models.unload).result(SECONDS)
    assert models.all == []


@pytest.mark.parametrize("way", ["unload", "replace", "take the first place"])
def test_while_a_model_goes_nobody_gets_it(models: ResidentModels, recipe: Recipe, way: str) -> None:
    load_both(models, recipe)
    asked: list[str] = []

    def ask() -> None:
        try:
            asked.append(use(models))
        except ModelNotLoadedError as error:
            asked.append(error.message)

    recipe.engines["one"].when_closed = ask
    if way == "unload":
        models.unload()
    else:
        models.load(request("three" if way == "replace" else "two"), recipe)
    assert asked == [
        {
            "unload": "No model is loaded. POST /load_model loads one.",
            "replace": "The model three is loading. Ask again when it is ready.",
            "take the first place": "two",
        }[way]
    ]


def test_nobody_waits_for_a_load_at_the_end(models: ResidentModels, recipe: Recipe) -> None:
    recipe.may_finish.clear()
    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(models.load, request("one"), recipe)
        assert recipe.checked.wait(SECONDS)
        models.close()
        assert isinstance(load.exception(SECONDS), ShuttingDownError)
    recipe.may_finish.set()
    with pytest.raises(ShuttingDownError):
        models.load(request("two"), recipe)


# Several


def test_a_second_model_beside_the_first(models: ResidentModels, recipe: Recipe) -> None:
    models.load(request("one"), recipe)
    recipe.checked.clear()
    recipe.may_finish.clear()
    with ThreadPoolExecutor(1) as pool, models.use():
        load = pool.submit(models.load, request("two"), recipe, replace=False)
        assert recipe.checked.wait(SECONDS)
        # It waits for nobody, and takes nothing from anybody.
        assert use(models) == "one" and default(models) == ("one", "ready")
        with pytest.raises(ModelNotLoadedError, match="two is loading"):
            use(models, "two")
        recipe.may_finish.set()
        load.result(SECONDS)
    assert shown(models) == [("one", "ready"), ("two", "ready")]
    assert (use(models), use(models, "one"), use(models, "two")) == ("one", "one", "two")
    with pytest.raises(ModelNotResidentError, match=r"'three'.*one, two"):
        use(models, "three")


@pytest.mark.parametrize("stage", ["check", "weights"])
def test_a_second_model_that_fails_leaves_the_first_untouched(
    models: ResidentModels, recipe: Recipe, stage: str
) -> None:
    first = models.load(request("one"), recipe)
    setattr(recipe, f"error_in_{stage}", OutOfMemoryError("two does not fit", needed_bytes=2, free_bytes=1))
    with models.use(), pytest.raises(OutOfMemoryError):
        models.load(request("two"), recipe, replace=False)
    assert models.all == [first] and use(models) == "one"
    with pytest.raises(ModelNotResidentError):
        use(models, "two")


def test_the_first_model_of_all_may_come_beside_none(models: ResidentModels, recipe: Recipe) -> None:
    recipe.error_in_check = ModelNotFoundError("There is no model one.")
    with pytest.raises(ModelNotFoundError):
        models.load(request("one"), recipe, replace=False)
    assert default(models) == ("one", "failed")
    recipe.error_in_check = None
    models.load(request("two"), recipe, replace=False)
    assert shown(models) == [("two", "ready")] and default(models) == ("two", "ready")


def test_a_name_stands_for_one_model(models: ResidentModels, recipe: Recipe) -> None:
    load_both(models, recipe)
    for name in ("one", "two"):
        with pytest.raises(ModelNameTakenError, match=f"{name} is resident"):
            models.load(request(name, recipe="changed"), recipe, replace=False)
    assert shown(models) == [("one", "ready"), ("two", "ready")]


def test_a_model_replaces_the_default_and_none_beside_it(models: ResidentModels, recipe: Recipe) -> None:
    load_both(models, recipe)
    models.load(request("three"), recipe)
    assert shown(models) == [("three", "ready"), ("two", "ready")]
    assert (use(models), use(models, "two")) == ("three", "two")


def test_a_model_from_beside_takes_the_place_of_the_default(models: ResidentModels, recipe: Recipe) -> None:
    load_both(models, recipe)
    recipe.history.clear()
    with ThreadPoolExecutor(1) as pool:
        loaded = waits_for_its_users(pool, models, lambda: models.load(request("two"), recipe)).result(SECONDS)
    assert models.all == [loaded] and use(models) == "two"
    assert recipe.history == ["close one"]


def test_the_same_name_built_anew_replaces_both(models: ResidentModels, recipe: Recipe) -> None:
    load_both(models, recipe)
    recipe.history.clear()
    models.load(request("two", recipe="changed"), recipe)
    assert shown(models) == [("two", "ready")]
    assert recipe.history == ["check two", "close one", "close two", "weights two"]


def test_after_a_failure_no_other_model_answers_for_the_default(models: ResidentModels, recipe: Recipe) -> None:
    load_both(models, recipe)
    recipe.error_in_weights = ValueError("no such layer")
    with pytest.raises(ModelLoadError):
        models.load(request("three"), recipe)
    assert shown(models) == [("three", "failed"), ("two", "ready")]
    with pytest.raises(ModelNotLoadedError, match="no such layer"):
        use(models)
    assert use(models, "two") == "two" and models.ready() == ["two"]
    recipe.error_in_weights = None
    models.load(request("four"), recipe, replace=False)  # the empty place is taken first
    assert shown(models) == [("four", "ready"), ("two", "ready")]
    models.unload()
    with pytest.raises(ModelNotLoadedError, match="No model is loaded"):
        models.ready()


def test_memory_is_shared_by_those_that_are_awake_on_a_device(models: ResidentModels, recipe: Recipe) -> None:
    load_both(models, recipe)
    engines = recipe.engines
    assert (engines["one"].shares_with, engines["two"].shares_with) == (2, 2)
    models.sleep()
    models.load(request("two"), recipe, replace=False)
    assert engines["two"].shares_with == 1
    models.wake()
    assert (engines["one"].shares_with, engines["two"].shares_with) == (2, 2)
    models.unload("two")
    assert engines["one"].shares_with == 1


def test_one_is_unloaded_by_name(models: ResidentModels, recipe: Recipe) -> None:
    load_both(models, recipe)
    with pytest.raises(ModelNotResidentError, match=r"'three'.*one, two"):
        models.unload("three")
    with ThreadPoolExecutor(1) as pool:
        unload = waits_for_its_users(pool, models, lambda: models.unload("one"))
        assert use(models, "two") == "two"
        unload.result(SECONDS)
    assert shown(models) == [("two", "ready")] and use(models) == "two"
    models.load(request("one"), recipe, replace=False)
    models.unload()
    assert models.all == []


def test_who_holds_on_to_a_model_gets_that_or_none(models: ResidentModels, recipe: Recipe) -> None:
    load_both(models, recipe)
    two = next(model for model in models.all if model.name == "two")
    assert use(models, two) == "two"
    models.unload("two")
    models.load(request("two"), recipe, replace=False)
    with pytest.raises(ModelNotLoadedError, match="two"):
        use(models, two)


def test_the_engine_is_that_of_the_run_s_model(models: ResidentModels, recipe: Recipe) -> None:
    load_both(models, recipe)
    for which, engine in ((None, "one"), ("two", "two"), ("one", "one")):
        with models.use(which):
            assert models.engine() is recipe.engines[engine]
            with models.use("two"):
                assert models.engine() is recipe.engines["two"]
            assert models.engine() is recipe.engines[engine]
    assert models.engine() is recipe.engines["one"]
    models.unload()
    with pytest.raises(ModelNotLoadedError):
        models.engine()


# Asleep


def test_models_sleep_and_wake(models: ResidentModels, recipe: Recipe) -> None:
    assert models.sleep() == []
    models.wake()
    load_both(models, recipe)
    recipe.history.clear()
    one, two = models.all
    assert models.sleep() == [(one, "bytes of one"), (two, "bytes of two")]
    assert shown(models) == [("one", "asleep"), ("two", "asleep")]
    for which in (None, "two"):
        with pytest.raises(ModelAsleepError, match="POST /wake"):
            use(models, which)
    with pytest.raises(ModelAsleepError):
        models.engine()
    assert models.sleep() == []
    models.wake()
    assert shown(models) == [("one", "ready"), ("two", "ready")] and use(models) == "one"
    models.wake()
    assert recipe.history == ["sleep one", "sleep two", "wake one", "wake two"]


def test_sleep_waits_for_those_who_use_the_model_and_takes_no_new_ones(
    models: ResidentModels, recipe: Recipe
) -> None:
    models.load(request("one"), recipe)
    with ThreadPoolExecutor(1) as pool:
        with models.use() as model:
            sleep = pool.submit(models.sleep)
            wait_until(models, lambda: model.state == "asleep")
            with pytest.raises(ModelAsleepError):
                use(models)
            assert models.engine() is recipe.engines["one"]  # for the run that it waits for
            assert recipe.history[-1] == "weights one"
        sleep.result(SECONDS)
    assert recipe.history[-1] == "sleep one"


def test_a_model_that_cannot_sleep_stays_awake(models: ResidentModels, recipe: Recipe) -> None:
    load_both(models, recipe)
    recipe.engines["two"].error = OutOfMemoryError("no place in host memory")
    with pytest.raises(OutOfMemoryError):
        models.sleep()
    assert shown(models) == [("one", "asleep"), ("two", "ready")]
    recipe.engines["two"].error = None
    assert [model.name for model, _ in models.sleep()] == ["two"]


def test_a_model_that_finds_no_memory_sleeps_on(models: ResidentModels, recipe: Recipe) -> None:
    models.load(request("one"), recipe)
    models.sleep()
    recipe.engines["one"].error = OutOfMemoryError("the training job is still there")
    with pytest.raises(OutOfMemoryError):
        models.wake()
    assert shown(models) == [("one", "asleep")]
    recipe.engines["one"].error = None
    models.wake()
    assert use(models) == "one"


def test_loading_wakes_a_sleeping_model(models: ResidentModels, recipe: Recipe) -> None:
    load_both(models, recipe)
    models.sleep()
    recipe.history.clear()
    assert models.load(request("two"), recipe, replace=False).state == "ready"
    assert recipe.history == ["wake two"]
    assert shown(models) == [("one", "asleep"), ("two", "ready")]


def test_whatever_wakes_wrongly_is_an_answer(models: ResidentModels, recipe: Recipe) -> None:
    models.load(request("one"), recipe)
    models.sleep()
    recipe.engines["one"].error = RuntimeError("an illegal memory access")
    with pytest.raises(ModelLoadError, match="illegal memory access"):
        models.load(request("one"), recipe)
    assert shown(models) == [("one", "asleep")]


def test_a_sleeping_model_is_replaced_and_unloaded(models: ResidentModels, recipe: Recipe) -> None:
    load_both(models, recipe)
    models.sleep()
    models.load(request("three"), recipe)
    assert shown(models) == [("three", "ready"), ("two", "asleep")]
    models.unload("two")
    assert shown(models) == [("three", "ready")]
    assert use(models) == "three"
