"""`repoint`: old ids in source code are found as whole tokens, replaced byte for byte, and taken back."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft4Validator  # type: ignore[import-untyped]

from engine.errors import ConfigError
from engine.ledger.durable import put_in_place
from engine.verbs.repoint import rewriting
from engine.verbs.repoint.maps import read_map
from engine.verbs.repoint.rewriting import repoint
from engine.verbs.repoint.search import Search, places, replaced
from engine.verbs.repoint.table import Pair, Table, table_of
from engine.verbs.repoint.text import text_of
from engine.verbs.repoint.tree import files_under
from tests.e2e import Ended, promptferry
from tests.forks import ROOT
from tests.verbs.planted import plant

Row = dict[str, str | None]
SWAPPED: Sequence[Row] = (
    {"source_id": "u-1", "source_slug": "pp-a", "target_id": "u-9", "target_slug": "pp-b"},
    {"source_id": "u-2", "source_slug": "pp-b", "target_id": "u-8", "target_slug": "pp-a"},
)
NAMED: Sequence[Row] = (
    {"source_id": "summary", "source_name": "summary", "target_id": "t-1", "target_slug": "pp-s", "name": "other"},
    {"source_id": "u-5", "source_name": "Ask twice", "target_id": "u-6", "name": "Ask once"},
)


def pairs(*olds: str) -> list[Pair]:
    return [Pair(old, (f"new-{old}",), "id") for old in olds]


def written(path: Path, rows: Sequence[Row]) -> Path:
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def tree_of(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


# ---- whole tokens ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("pp-a", [1]),
        ("'pp-a' \"pp-a\"", [2, 9]),
        ("/v1/pp-a/x?pp-a=pp-a&a.pp-a", [5, 12, 17, 24]),
        ("pp-ab xpp-a x-pp-a x_pp-a pp-a-x pp-a_x pp-a1 1pp-a pp-a- -pp-a _pp-a", []),
        ("épp-a pp-aß 題pp-a pp-aя pp-a٣ ²pp-a", []),
        ("e\u0301pp-a pp-a\u0301", []),  # a letter in two characters is a letter
        ("“pp-a”→pp-a…❤\ufe0fpp-a", [2, 8, 15]),
        ("pp-pp-a", []),
        ("PP-A pp-A", []),
        ("pp-app-a", []),
    ],
)
def test_letters_and_digits_of_any_script_make_it_another_token(text: str, columns: list[int]) -> None:
    hits = Search(pairs("pp-a")).find(text)
    assert [column for _, column in places(text, hits)] == columns


@pytest.mark.parametrize(
    ("olds", "text", "new"),
    [
        (["pp-a", "pp-ab", "pp-a b"], "pp-a pp-ab pp-a b", "new-pp-a new-pp-ab new-pp-a b"),
        (["a b", "b c d"], "a b c d", "new-a b c d"),
        (["x y", "y"], "zx y", "zx new-y"),  # what is no token hides nothing
        (["ask (twice)"], "ask (twice) ask (twice)x", "new-ask (twice) ask (twice)x"),
        (["größe/ß"], "größe/ß", "new-größe/ß"),
    ],
)
def test_of_those_that_overlap_the_first_and_longest_is_replaced(olds: list[str], text: str, new: str) -> None:
    assert replaced(text, Search(pairs(*olds)).find(text)) == new


def test_lines_end_with_a_line_feed_and_columns_count_characters() -> None:
    text = "\ufeffpp-a\r\n“”𝄞pp-a\rpp-a\n\npp-a pp-a"
    assert [*places(text, Search(pairs("pp-a")).find(text))] == [(1, 1), (2, 4), (2, 9), (4, 1), (4, 6)]


# ---- bytes -----------------------------------------------------------------------------------------------------------

CODECS = ["utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1", "cp1252", "utf-16-le", "utf-16-be"]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_encoding_and_line_end_is_kept(codec: str, end: str, tmp_path: Path) -> None:
    text = end.join(["größe = 'pp-a'", "x-pp-a", "épp-a", "pp-b", ""])
    file = tmp_path / "file.txt"
    file.write_bytes(text.encode(codec))
    before = file.read_bytes()
    table = table_of(SWAPPED, names=False, reverse=False)
    done = repoint([file], table, write=True)
    assert [(one.old, one.new, one.rewritten) for one in done.found] == [("pp-a", "pp-b", True), ("pp-b", "pp-a", True)]
    expected = end.join(["größe = 'pp-b'", "x-pp-a", "épp-a", "pp-a", ""])
    assert file.read_bytes() == expected.encode(codec)
    repoint([file], table_of(SWAPPED, names=False, reverse=True), write=True)
    assert file.read_bytes() == before


@given(st.one_of(st.binary(max_size=64), st.text(max_size=20).map(lambda text: text.encode("utf-16", "surrogatepass"))))
def test_any_bytes_come_back_as_they_were(data: bytes) -> None:
    text = text_of(data)
    assert text is None or text.encoded(text.text) == data
    assert text is None or len(text.view.encode("utf-32-le")) == 4 * len(text.text)  # no surrogates, and as long


@pytest.mark.parametrize(
    ("data", "is_text"),
    [
        (b"", True),
        (b"pp-a\0", False),
        (b"x" * 9000 + b"\0", False),
        (b"\x7fELF\x02\x01\x01\0\0\0\0\0", False),
        (b"\x01\0\x02\0\x03\0\x04\0", False),
        ("prompt = pp-support \u0100\n".encode("utf-16-le"), True),
        (b"\xff\xfe" + "pp-a".encode("utf-16-le") + b"x", True),
        (b"\xff\xfea\0\x00\xd8", True),
        (b"pp-a \xff\xe9", True),
    ],
)
def test_what_is_text(data: bytes, is_text: bool) -> None:
    assert (text_of(data) is not None) == is_text


def test_a_name_that_a_file_in_another_encoding_could_not_hold_is_told_and_not_written(tmp_path: Path) -> None:
    file = tmp_path / "old.php"
    file.write_bytes("$größe = 'pp-a';".encode("latin-1"))
    table = table_of([{"source_id": "pp-a", "target_id": "größer"}], names=False, reverse=False)
    done = repoint([file], table, write=True)
    assert [trouble.file for trouble in done.troubles] == [str(file)]
    assert (done.exit_code(write=True, check=False), done.exit_code(write=True, check=True)) == (1, 3)
    assert file.read_bytes() == "$größe = 'pp-a';".encode("latin-1")


# ---- what is looked for ----------------------------------------------------------------------------------------------


def looked_for(rows: Sequence[Row], *, names: bool = False, reverse: bool = False) -> dict[str, str | None]:
    """What is replaced."""
    return {pair.old: pair.new for pair in table_of(rows, names=names, reverse=reverse).pairs if not pair.spared}


def test_ids_to_ids_and_slugs_to_slugs_or_what_there_is() -> None:
    assert looked_for(SWAPPED) == {"u-1": "u-9", "pp-a": "pp-b", "u-2": "u-8", "pp-b": "pp-a"}
    assert looked_for(SWAPPED, reverse=True) == {"u-9": "u-1", "pp-b": "pp-a", "u-8": "u-2", "pp-a": "pp-b"}
    no_slug: Row = {"source_id": "u", "source_slug": "pp", "target_id": "t"}
    assert looked_for([no_slug]) == {"u": "t", "pp": "t"}
    same: Row = {"source_id": "u", "source_slug": "pp", "target_id": "u", "target_slug": "pq"}
    assert looked_for([same]) == {"pp": "pq"}


def test_an_id_that_is_only_a_name_is_replaced_when_names_are_asked_for() -> None:
    table = table_of(NAMED, names=False, reverse=False)
    assert ({pair.old for pair in table.pairs if not pair.spared}, table.words) == ({"u-5"}, ["summary"])
    assert [pair.old for pair in table.pairs if pair.perhaps] == ["Ask twice"]
    other: Row = {"source_id": "u-7", "source_name": "summary", "target_id": "u-8", "name": "sum"}
    assert table_of([other, *NAMED], names=False, reverse=False).words == ["summary"], "the id of another prompt"
    assert looked_for(NAMED, names=True) == {"u-5": "u-6", "summary": "t-1", "Ask twice": "Ask once"}
    back: Row = {"source_id": "u-1", "target_id": "greeting", "name": "greeting"}
    assert looked_for([back]) == {"u-1": "greeting"}
    assert looked_for([back], reverse=True) == {}
    assert looked_for([back], reverse=True, names=True) == {"greeting": "u-1"}


def test_what_nobody_can_tell_is_named(tmp_path: Path) -> None:
    one: Row = {"source_id": "u-1", "source_name": "Ask", "target_id": "t-1", "name": "Ask A"}
    two: Row = {"source_id": "u-2", "source_name": "Ask", "target_id": "t-2", "name": "Ask B"}
    table = table_of([one, two], names=True, reverse=False)
    assert [pair.old for pair in table.unclear] == ["Ask"]
    file = tmp_path / "a.txt"
    file.write_text("Ask u-1")
    done = repoint([file], table, write=True)
    assert file.read_text() == "Ask t-1"
    assert [(found.old, found.news, found.rewritten) for found in done.left] == [("Ask", ("Ask A", "Ask B"), False)]
    assert done.exit_code(write=True, check=False) == 1
    with pytest.raises(ConfigError, match=r"'t-1' stands for 'u-1' and 'u-3'"):
        table_of([one, {"source_id": "u-3", "target_id": "t-1"}], names=False, reverse=True)
    with pytest.raises(ConfigError, match=r"'u-1' stands for 't-1' and 't-9'"):
        table_of([one, {"source_id": "u-1", "target_id": "t-9"}], names=False, reverse=False)


def test_the_same_map_in_three_forms(tmp_path: Path) -> None:
    as_json = written(tmp_path / "m.json", SWAPPED)
    as_csv = tmp_path / "m.csv"
    lines = [",".join(str(value) for value in row.values()) for row in SWAPPED]
    as_csv.write_text("\n".join(["\ufeff" + ",".join(SWAPPED[0]), *lines, ""]), encoding="utf-8")
    as_env = tmp_path / "m.env"
    as_env.write_text("# ids\nPROMPT_PP_A=pp-b\nexport PROMPT_PP_B=pp-a\nPROMPT_SUMMARY=pp-s\n")
    assert looked_for(read_map(as_csv).rows) == looked_for(read_map(as_json).rows) == looked_for(SWAPPED)  # type: ignore[arg-type]
    found = read_map(as_env)
    table = table_of(found.rows, names=False, reverse=False)
    assert {pair.old: pair.new for pair in table.pairs if not pair.spared} == {"pp-a": "pp-b", "pp-b": "pp-a"}
    assert table.words == ["summary"]
    assert not found.spelled


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("hello\n", 1),
        ("PROMPT_A=b\nx\n", 2),
        ("[{}]", None),
        ("[1]", None),
        ("[", None),
        ('[{"source_id": 1, "target_id": "t"}]', None),
        ("source_id,target_id\na\n", 2),
        ("source_id\na\n", 2),
        ('source_id,target_id\n"a,b\n', 2),
    ],
)
def test_what_is_no_map_is_refused_by_its_line(text: str, line: int | None, tmp_path: Path) -> None:
    path = tmp_path / "map"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        read_map(path)
    assert [(problem.file, problem.line) for problem in error.value.problems] == [(str(path), line)]


# ---- which files -----------------------------------------------------------------------------------------------------


def listed(*paths: Path, own: str = "") -> list[str]:
    with ThreadPoolExecutor(2) as pool:
        found = files_under(paths, pool, own=lambda real: real == own, alive=lambda: None)
    assert not found.troubles
    return [place.shown for place in found.files]


IGNORED = {
    ".gitignore": "# rules\n*.log\n!keep.log\n/build/\nnode_modules\n**/cache/*.tmp\ndist/*\n!dist/kept.js\n"
    "sp\\ ace\n[\n!\n",
    ".git/info/exclude": "private\n",
    "a.py": "",
    "a.log": "",
    "keep.log": "",
    "build/x.py": "",
    "src/build/x.py": "",
    "src/.gitignore": "!b.log\r\n*.gen.ts\r\n",
    "src/b.log": "",
    "src/c.log": "",
    "src/d.gen.ts": "",
    "src/deep/e.gen.ts": "",
    "src/node_modules/m/index.js": "",
    "web/cache/f.tmp": "",
    "web/cache/f.txt": "",
    "dist/kept.js": "",
    "dist/left.js": "",
    "sp ace": "",
    "private": "",
    "src/private/x": "",
    ".env": "",
    ".github/workflows/ci.yml": "",
}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repo"
    for name, text in IGNORED.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed here")
@pytest.mark.parametrize("within", [".", "src", "web/cache", "src/build"])
def test_what_git_ignores_is_left_out(repository: Path, within: str) -> None:
    rules = (repository / ".git" / "info" / "exclude").read_text()
    shutil.rmtree(repository / ".git")
    environ = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull, "HOME": str(repository)}
    subprocess.run(["git", "init", "-q"], cwd=repository, check=True, env=environ)
    (repository / ".git" / "info" / "exclude").write_text(rules)
    command = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    seen = subprocess.run(command, cwd=repository / within, check=True, env=environ, stdout=subprocess.PIPE).stdout
    expected = sorted(str(repository / within / name) for name in seen.decode().split("\0") if name)
    assert sorted(map(os.path.normpath, listed(repository / within))) == [*map(os.path.normpath, expected)]
    assert expected


def test_a_path_that_is_named_is_looked_at_though_git_ignores_it(repository: Path) -> None:
    assert listed(repository / "build") == [str(repository / "build" / "x.py")]
    assert listed(repository / "a.log") == [str(repository / "a.log")]


def test_a_file_is_looked_at_once_and_a_repository_in_another_one_has_its_own_rules(repository: Path) -> None:
    inner = repository / "vendor" / "inner"
    (inner / ".git").mkdir(parents=True)
    (inner / "x.log").touch()
    both = listed(repository, repository / "src", repository / "a.py")
    assert len(set(both)) == len(both)
    assert str(inner / "x.log") in both
    assert str(repository / "src" / "b.log") in both


def test_the_rules_of_another_work_tree_are_those_of_its_repository(repository: Path) -> None:
    git = repository / ".git" / "worktrees" / "w"
    git.mkdir(parents=True)
    (git / "commondir").write_text("../..\n")
    tree = repository.parent / "w"
    tree.mkdir()
    (tree / ".git").write_text(f"gitdir: {git}\n")
    (tree / "private").touch()
    (tree / "open").touch()
    assert listed(tree) == [str(tree / "open")]


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a").touch()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real" / "b").symlink_to("a")
    assert listed(tmp_path) == [str(tmp_path / "real" / "a")]
    with pytest.raises(ConfigError, match="is a link"):
        listed(tmp_path / "link")
    with pytest.raises(ConfigError, match="no such file"):
        listed(tmp_path / "none")


# ---- writing ---------------------------------------------------------------------------------------------------------


def test_mode_and_owner_are_kept_and_the_file_is_another_one(tmp_path: Path) -> None:
    file = tmp_path / "run.sh"
    file.write_text("pp-a")
    file.chmod(0o751)
    if os.geteuid() == 0:
        os.chown(file, 12, 34)
    before = file.stat()
    repoint([file], table_of(SWAPPED, names=False, reverse=False), write=True)
    after = file.stat()
    assert (after.st_uid, after.st_gid, stat.S_IMODE(after.st_mode)) == (before.st_uid, before.st_gid, 0o751)
    assert after.st_ino != before.st_ino
    assert os.listdir(tmp_path) == ["run.sh"]


def test_a_file_that_cannot_be_read_or_written_is_told_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text("pp-a")
    read = rewriting._read

    def refusing(real: str) -> Any:
        if real.endswith("a"):
            raise PermissionError(13, "Permission denied", real)
        return read(real)

    def full(new: Path, path: Path) -> None:
        if path.name == "b":
            new.unlink()
            raise OSError(28, "No space left on device")
        put_in_place(new, path)

    monkeypatch.setattr(rewriting, "_read", refusing)
    monkeypatch.setattr(rewriting, "put_in_place", full)
    done = repoint([tmp_path], table_of(SWAPPED, names=False, reverse=False), write=True)
    assert [str(trouble) for trouble in done.troubles] == [
        f"{tmp_path / 'a'}: cannot be read: Permission denied",
        f"{tmp_path / 'b'}: cannot be rewritten: No space left on device",
    ]
    assert tree_of(tmp_path) == {"a": b"pp-a", "b": b"pp-a", "c": b"pp-b"}
    assert done.exit_code(write=True, check=False) == 1


def test_what_somebody_changed_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a"
    file.write_text("pp-a")
    read = rewriting._read

    def slow(real: str) -> Any:
        found = read(real)
        file.write_text("pp-a, and more")
        return found

    monkeypatch.setattr(rewriting, "_read", slow)
    done = repoint([file], table_of(SWAPPED, names=False, reverse=False), write=True)
    assert file.read_text() == "pp-a, and more"
    assert "meanwhile" in done.troubles[0].message
    assert os.listdir(tmp_path) == ["a"]


def test_who_ends_it_leaves_every_file_whole(tmp_path: Path) -> None:
    for number in range(300):
        (tmp_path / f"{number}").write_text("pp-a" * (number % 2) or "pp-a")
    calls = iter(range(3))

    def alive() -> None:
        if next(calls, None) is None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        repoint([tmp_path], table_of(SWAPPED, names=False, reverse=False), write=True, alive=alive)
    assert set(tree_of(tmp_path).values()) <= {b"pp-a", b"pp-b"}


def test_nothing_to_look_for(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("pp-a")
    done = repoint([tmp_path], Table(pairs=[]), write=True)
    assert (done.files, done.found) == (1, [])


# ---- the command -----------------------------------------------------------------------------------------------------


def command(folder: Path, *flags: str | Path) -> Ended:
    return promptferry("repoint", *flags, cwd=folder)


def test_a_planted_tree_is_found_rewritten_and_taken_back(tmp_path: Path) -> None:
    planted = plant(tmp_path / "src", files=360, ids=200, look_alikes=60)
    planted.write_map(tmp_path / "ids.csv")
    before = tree_of(tmp_path / "src")
    found = command(tmp_path, "src", "--map", "ids.csv", "--json")
    assert found.code == 0, found.err
    expected = [(f"src/{file}", *rest) for file, *rest in planted.found]
    got = [(one["file"], one["line"], one["column"], one["old"], one["new"]) for one in found.json["found"]]
    assert sorted(got) == sorted(expected)
    assert got == sorted(got, key=lambda one: one[0])
    assert command(tmp_path, "src", "--map", "ids.csv", "--check").code == 3
    assert tree_of(tmp_path / "src") == before

    done = command(tmp_path, "src", "--map", "ids.csv", "--write", "--check")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[-1].startswith(f"{len(expected)} old ones in 360 files, {len(expected)} rewritten in ")
    after = tree_of(tmp_path / "src")
    assert {file for file in before if before[file] != after[file]} == {file for file, *_ in planted.found}
    assert sum(map(len, after.values())) != sum(map(len, before.values()))
    assert command(tmp_path, "src", "--map", "ids.csv", "--check").out == "0 old ones in 360 files\n"

    assert command(tmp_path, "src", "--map", "ids.csv", "--write", "--reverse", "--check").code == 0
    assert tree_of(tmp_path / "src") == before


def test_a_swap_is_done_in_one_pass(tmp_path: Path) -> None:
    written(tmp_path / "m.json", SWAPPED)
    (tmp_path / "a.env").write_bytes(b"A=pp-a\r\nB=pp-b\r\n")
    done = command(tmp_path, ".", "--map", "m.json", "--write")
    assert done.out.splitlines()[:2] == ["a.env:1:3: pp-a -> pp-b", "a.env:2:3: pp-b -> pp-a"]
    assert (done.code, (tmp_path / "a.env").read_bytes()) == (0, b"A=pp-b\r\nB=pp-a\r\n")
    assert "a second --write" in done.err
    assert json.loads((tmp_path / "m.json").read_text()) == list(SWAPPED)


def test_names_are_told_of_and_taken_when_they_are_asked_for(tmp_path: Path) -> None:
    written(tmp_path / "m.json", NAMED)
    (tmp_path / "a.md").write_text("a summary; Ask twice; u-5")
    plain = command(tmp_path, "a.md", "--map", "m.json", "--json").json
    assert [(one["old"], one["new"], one["perhaps"]) for one in plain["found"]] == [
        ("summary", "t-1", False),
        ("Ask twice", "Ask once", True),
        ("u-5", "u-6", False),
    ]
    assert (plain["counts"]["found"], plain["counts"]["perhaps"], plain["only_with_names"]) == (2, 1, ["summary"])
    some = command(tmp_path, "a.md", "--map", "m.json", "--write")
    assert (some.code, "'summary'" in some.err) == (1, True), "an id is left"
    assert (tmp_path / "a.md").read_text() == "a summary; Ask twice; u-6"
    assert command(tmp_path, "a.md", "--map", "m.json", "--names", "--write").code == 0
    assert (tmp_path / "a.md").read_text() == "a t-1; Ask once; u-6"


@pytest.mark.parametrize(
    ("text", "flags", "code", "last"),
    [
        ("get_prompt('summary')", (), 3, "1 old ones in 1 files"),
        ("say Ask twice", (), 0, "0 old ones in 1 files; 1 names that perhaps are (--names)"),
        ("say Ask twice", ("--names",), 3, "1 old ones in 1 files"),
        ("say Ask", (), 0, "0 old ones in 1 files"),
    ],
)
def test_the_gate_is_shut_for_every_id_and_for_names_when_asked(
    text: str, flags: tuple[str, ...], code: int, last: str, tmp_path: Path
) -> None:
    written(tmp_path / "m.json", NAMED)
    (tmp_path / "a.py").write_text(text)
    found = command(tmp_path, "a.py", "--map", "m.json", "--check", *flags)
    assert (found.code, found.out.splitlines()[-1]) == (code, last)


def test_a_name_that_is_spared_hides_no_id() -> None:
    rows: Sequence[Row] = (
        {"source_id": "pp-a", "source_name": "Ask pp-a", "target_id": "pp-b", "name": "Ask pp-b"},
        {"source_id": "word", "source_name": "word", "target_id": "word-r", "name": "word-r"},
        {"source_id": "u-1", "source_name": "any word", "target_id": "u-2", "name": "other"},
    )
    text = "Ask pp-a; any word; Ask"
    plain, named = (Search(table_of(rows, names=names, reverse=False).pairs) for names in (False, True))
    assert [hit.pair.old for hit in plain.find(text)] == ["pp-a", "word"]
    assert replaced(text, plain.find(text)) == "Ask pp-b; any word; Ask"
    assert replaced(text, named.find(text)) == "Ask pp-b; other; Ask"


def test_the_map_of_a_migration_is_that_of_its_replicas_and_what_tells_of_them_stays(tmp_path: Path) -> None:
    shutil.copy(ROOT / "configs" / "sandbox.yaml", tmp_path / "demo.yaml")
    assert promptferry("run", "demo.yaml", "--limit", "30", "--rate", "3000", cwd=tmp_path).code == 0
    assert promptferry("rollback", "demo.yaml", "--only", "s*", "--yes", cwd=tmp_path).code == 0
    rows = promptferry("ids", "demo.yaml", "--json", cwd=tmp_path).json
    assert 0 < len(rows) < 30
    lines = (tmp_path / "ledgers" / "demo.jsonl").read_text().splitlines()
    gone = {line["source_id"] for line in map(json.loads, lines) if line["kind"] == "rolled_back"}
    (tmp_path / "notes.txt").write_text("\n".join([*gone, *(row["source_id"] for row in rows)]))
    (tmp_path / "demo.yaml").write_text((tmp_path / "demo.yaml").read_text() + f"\n# {rows[0]['source_id']}\n")
    assert promptferry("plan", "demo.yaml", "--out", "plan.json", "--rate", "3000", cwd=tmp_path).code == 0
    before = tree_of(tmp_path)
    done = command(tmp_path, ".", "--migration", "demo.yaml", "--write", "--json")
    assert (done.code, done.json["counts"]["rewritten"]) == (0, len(rows)), done.err
    changed = {name for name, data in tree_of(tmp_path).items() if data != before[name]}
    assert changed == {"notes.txt"}
    assert (tmp_path / "notes.txt").read_text() == "\n".join([*gone, *(row["target_id"] for row in rows)])
    one = command(
        tmp_path, ".", "--ledger", "ledgers/demo.jsonl", "--reverse", "--only", rows[0]["source_id"], "--json"
    )
    assert [found["new"] for found in one.json["found"]] == [rows[0]["source_id"]]


def test_sarif_is_as_its_schema_says_and_as_github_needs_it(tmp_path: Path) -> None:
    """The schema is that of npm's @microsoft/jest-sarif 1.0.0-beta.0 (MIT), without its descriptions."""
    schema = json.loads((ROOT / "tests" / "data" / "sarif-2.1.0-rtm.5.json").read_text(encoding="utf-8"))
    written(tmp_path / "m.json", [*NAMED, *NAMED, *SWAPPED])
    (tmp_path / "säge b").mkdir()
    (tmp_path / "säge b" / "a:b.py").write_text("“pp-a” summary\n", encoding="utf-8")
    flags = ("--map", "m.json", "--names", "--sarif", "out.sarif")
    assert command(tmp_path, ".", *flags, "--check").code == 3
    again = command(tmp_path, tmp_path, *flags)  # what it wrote itself is not looked at; paths are below the folder
    log = json.loads((tmp_path / "out.sarif").read_text(encoding="utf-8"))
    assert [error.message for error in Draft4Validator(schema).iter_errors(log)] == []
    assert (log["version"], again.code) == ("2.1.0", 0)
    (run,) = log["runs"]
    first, second = run["results"]
    place = first["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "s%C3%A4ge%20b/a%3Ab.py"
    assert place["region"] == {"startLine": 1, "startColumn": 2, "endColumn": 6}
    assert (run["columnKind"], first["level"], first["ruleId"]) == ("unicodeCodePoints", "error", "old-slug")
    assert first["fixes"][0]["artifactChanges"][0]["replacements"][0]["insertedContent"] == {"text": "pp-b"}
    assert "'summary'" in second["message"]["text"]
    rules = run["tool"]["driver"]["rules"]
    assert run["tool"]["driver"]["name"] == "promptferry"
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
    for rule in rules:
        assert rule["shortDescription"]["text"]
        assert rule["fullDescription"]["text"]
        assert rule["help"]["text"]


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ([], "--map"),
        (["--map", "m.json", "--ledger", "l.jsonl"], "--map"),
        (["--map", "m.json", "--only", "x"], "--only"),
        (["--map", "none.json"], "none.json"),
        (["--map", "m.env", "--reverse"], "m.env"),
        (["none", "--map", "m.json"], "none"),
        (["--ledger", "none.jsonl"], "none.jsonl"),
        (["--map", "m.json", "--sarif", "none/x.sarif"], "--sarif"),
    ],
)
def test_wrong_usage_is_a_sentence(flags: list[str], named: str, tmp_path: Path) -> None:
    written(tmp_path / "m.json", SWAPPED)
    (tmp_path / "m.env").write_text("PROMPT_PP_A=pp-b\n")
    ended = command(tmp_path, ".", *flags)
    assert (ended.code, ended.out) == (2, "")
    assert named in ended.sentence()
