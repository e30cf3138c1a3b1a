"""The running platform that the data-path tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.datapath import traffic
from tests.e2e.datapath.backends import VARIABLES, BackendError, binary, use_named
from tests.e2e.datapath.declared import Declared
from tests.e2e.datapath.stack import Stack
from tests.e2e.processes import Processes

# An object store, so that the Store Gateway and the Compactor are part of the bake; the bucket itself is a folder here.
ANSWERS = {"object_storage": "s3"}
# Files that take minutes: they go first, so that in the end no worker has one while the others have nothing.
LONG = ("test_alerts.py", "test_doctor.py", "test_object_stores.py", "test_faults.py", "test_slo.py", "test_story.py")


def pytest_configure() -> None:
    """Refuse a real store that cannot be run before anything is built."""
    try:
        for component in VARIABLES:
            binary(component)
    except BackendError as error:
        raise pytest.UsageError(str(error)) from None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first; within a file, and among the others, nothing changes its place."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.fixture(scope="session")
def declared(baked: Callable[..., Path]) -> Declared:
    return Declared(baked(**ANSWERS))


@pytest.fixture(scope="session")
def new_stack(declared: Declared, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Stack]]:
    """Return ``new_stack()``: a stack of its own that is not started yet; all of them end with the session."""
    with ExitStack() as running:

        def make() -> Stack:
            folder = tmp_path_factory.mktemp("stack")
            made = Stack(declared, folder, running.enter_context(Processes(folder / "logs")))
            running.callback(made.stop)
            return use_named(made)

        yield make


@pytest.fixture(scope="module")
def stack(new_stack: Callable[[], Stack]) -> Iterator[Stack]:
    """A healthy, running stack that has served some requests; each file has its own, so that none inherits a fault."""
    running = new_stack().start()
    traffic.warm_up(running)
    yield running
    running.stop()
