"""The README's Python runs as it stands."""

import re
from pathlib import Path

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 3
    scope = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), scope)
    assert scope["looks_at"].shape == (1, 8, 7, 7)


def test_the_readme_says_what_runs_the_tests():
    assert "make test" in README
    ci = (Path(__file__).parents[1] / ".ci" / "run").read_text()
    assert "make test" in ci
