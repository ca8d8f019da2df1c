"""The package as a whole: cheap to import, fully documented by examples that run, no hidden code in files."""

from __future__ import annotations

import ast
import doctest
import importlib
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import qiskit_qdeq
from qiskit_qdeq.exceptions import MissingExtraError

PACKAGE = Path(qiskit_qdeq.__file__).parent
README = PACKAGE.parent / "README.md"
SOURCES = sorted(PACKAGE.rglob("*.py"))
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(qiskit_qdeq.__path__, "qiskit_qdeq.")
    if not module.name.endswith("__main__")
)
HEAVY = ("sklearn", "numba", "matplotlib", "sympy", "tqdm")


def run_python(*arguments, cwd):
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), "MPLBACKEND": "agg"}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=cwd, env=environment, timeout=120
    )


def python_blocks():
    text = README.read_text("utf-8") if README.exists() else ""
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def test_import_brings_neither_sklearn_nor_numba_nor_matplotlib(tmp_path):
    code = f"import sys, qiskit_qdeq; print([name for name in {HEAVY} if name in sys.modules])"
    done = run_python("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_import_takes_little_beyond_qiskit(tmp_path):
    code = "import time, qiskit\nstart = time.perf_counter()\nimport qiskit_qdeq\nprint(time.perf_counter() - start)"
    done = run_python("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1.5


def test_everything_in_all_resolves_and_is_listed_by_dir():
    for name in qiskit_qdeq.__all__:
        assert getattr(qiskit_qdeq, name) is not None
    assert set(qiskit_qdeq.__all__) <= set(dir(qiskit_qdeq))


def test_unknown_attribute_is_an_attribute_error_that_names_it():
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = qiskit_qdeq.no_such_thing


def imported(name):
    try:
        return importlib.import_module(name)
    except MissingExtraError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name):
    assert doctest.testmod(imported(name)).failed == 0


def test_there_are_examples_to_run():
    finder = doctest.DocTestFinder(exclude_empty=True)
    modules = [name for name in MODULES if ".connectors." not in name]
    examples = [case for name in modules for case in finder.find(importlib.import_module(name)) if case.examples]
    assert len(examples) >= 5


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_module_is_short_documented_and_runs_no_hidden_code(path):
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= 400
    tree = ast.parse(text)
    assert ast.get_docstring(tree)
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    imports = {
        alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    } | {
        (node.module or "").split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and not node.level
    }
    assert not names & {"eval", "exec", "__import__"}
    assert not imports & {"pickle", "marshal", "shelve", "dill", "cloudpickle"}


def test_package_is_typed():
    assert (PACKAGE / "py.typed").is_file()


@pytest.mark.skipif(not README.exists(), reason="an installed package has no README beside it")
def test_readme_has_python_examples():
    assert len(python_blocks()) >= 2


@pytest.mark.parametrize("block", python_blocks(), ids=lambda block: block.splitlines()[-1][:40])
def test_python_example_of_the_readme_runs_as_a_script(block, tmp_path):
    (tmp_path / "example.py").write_text(block, "utf-8")
    done = run_python("example.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
