"""Something is called when a module has been imported, and imports are as they were."""

from __future__ import annotations

import importlib
import sys

import pytest

from offloop.wire import on_import


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Name of a module that can be imported and is not."""
    (tmp_path / "to_be_watched.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "to_be_watched"
    sys.modules.pop("to_be_watched", None)
    on_import.forget_all()


def test_all_is_called_when_the_code_has_run(module):
    seen = []
    before = list(sys.meta_path)
    on_import.watch(module, lambda: seen.append(sys.modules[module].value))
    on_import.watch(module, lambda: seen.append("again"))
    on_import.watch("never_imported", lambda: seen.append("no"))
    assert seen == []
    found = importlib.import_module(module)
    assert seen == [1, "again"]
    assert type(found.__loader__) is type(found.__spec__.loader)
    assert found.__loader__.get_source(module) == "value = 1\n"
    on_import.forget_all()
    assert sys.meta_path == before


def test_what_is_forgotten_is_not_called_but_what_is_for_always(module, monkeypatch):
    seen = []
    monkeypatch.setattr(on_import, "_lasting", {})
    on_import.watch(module, lambda: seen.append("forgotten"))
    on_import.watch(module, lambda: seen.append("always"), always=True)
    on_import.forget_all()
    on_import.forget_all()
    importlib.import_module(module)
    assert seen == ["always"]
    sys.meta_path.remove(on_import._FINDER)


def test_a_package_without_a_file_is_imported_all_the_same(tmp_path, monkeypatch):
    (tmp_path / "a_package_without_a_file").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    on_import.watch("a_package_without_a_file", pytest.fail)
    package = importlib.import_module("a_package_without_a_file")
    assert package.__file__ is None
    on_import.forget_all()
    del sys.modules["a_package_without_a_file"]


def test_what_does_not_exist_does_not_exist_all_the_same():
    on_import.watch("no_such_module_at_all", pytest.fail)
    with pytest.raises(ModuleNotFoundError, match="no_such_module_at_all"):
        importlib.import_module("no_such_module_at_all")
    on_import.forget_all()
