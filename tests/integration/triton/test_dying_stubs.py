"""A stub process that dies is an error of its model; the core, its other models and the worker go on.

The cases are in `support.dying_stubs`.
"""

from __future__ import annotations

import pytest

from support.own_process import run_with_dying_stubs

pytestmark = pytest.mark.timeout(300)  # a case takes some seconds, and may need more than one attempt


@pytest.fixture
def models(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    return str(folder)


@pytest.mark.parametrize("what", ["exits", "crashes"])
def test_a_stub_that_dies_gives_an_error_until_the_model_is_loaded_again(models, what):
    run_with_dying_stubs("while_executing", models, what)


@pytest.mark.parametrize("fault", ["no model.py", "exit on import", "crash in initialize"])
def test_a_stub_that_dies_while_it_loads_is_an_error_and_not_the_end(models, fault):
    run_with_dying_stubs("while_loading", models, fault)


def test_a_stub_that_dies_at_start_fails_the_start(models):
    run_with_dying_stubs("at_start", models)


@pytest.mark.parametrize("what", ["exits", "crashes"])
def test_a_worker_loads_a_model_again_whose_stub_has_died(models, what):
    run_with_dying_stubs("in_a_worker", models, what)
