"""`--executor` on the command line, where there is no Ray."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from engine.cluster import cluster_on_ray
from engine.errors import ConfigError
from tests.e2e import promptferry, write_migration


def test_without_the_extra_one_sentence_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "engine.cluster.on_ray", raising=False)
    with pytest.raises(ConfigError, match=r"Ray is not installed here: pip install 'promptferry\[ray\]'"):
        cluster_on_ray(None, None)


@pytest.mark.parametrize("command", [("run",), ("fleet", "run")])
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--workers", "2"), "give --executor ray, too"),
        (("--ray-address", "10.0.0.1:6379"), "give --executor ray, too"),
        (("--executor", "dask"), "must be one of local, ray"),
        (("--executor", "ray", "--workers", "0"), "greater than or equal to 1"),
        (("--executor", "ray", "--ray-address", "head"), "'head': must be HOST:PORT, auto or local"),
        (("--executor", "ray", "--ray-address", "ray://head:10001"), "must be HOST:PORT, auto or local"),
        (("--executor", "ray", "--ray-address", "[::1]:6379"), "Ray is not installed here"),
        (("--executor", "ray", "--ray-address", "local"), "Ray is not installed here"),
    ],
)
def test_what_makes_no_sense_is_refused(
    tmp_path: Path, command: tuple[str, ...], flags: tuple[str, ...], words: str
) -> None:
    path = write_migration(tmp_path, "http://127.0.0.1:9/v1")
    if command == ("fleet", "run"):
        path = tmp_path / "fleet.yaml"
        end = "{kind: portkey, base_url: 'http://127.0.0.1:9/v1', api_key: '${KEY}'}"
        path.write_text(f"name: f\nmigrations: [{{name: a, source: {end}}}]")
    ended = promptferry(*command, path, *flags, cwd=tmp_path, env={"KEY": "k"})
    assert ended.code == 2
    assert words in ended.err
    assert (ended.summary["exit_code"], ended.summary["reason"]) == (2, "config")
