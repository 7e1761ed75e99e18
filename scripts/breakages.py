#!/usr/bin/env python3
"""Breaks what the library rests on, one thing at a time, and sees that a test fails.

    scripts/breakages.py check          what CI runs: that the list below is complete and up to date
    scripts/breakages.py tables         rewrites the tables of docs/assurance.md from it
    scripts/breakages.py run [WORD..]   breaks each (of those with a WORD in them) and runs its command

The list is `scripts/breakages.json`. Each entry replaces one piece of a source by another
one, in a copy of the tree, and names the command that must fail then, and the tests that
make it fail: one of them must, or the command's whole program must end. `covers` names the
functions (or the `impl`s) whose `unsafe` rests on that piece. An entry whose `caught_by` is
empty says in `why` why no test can fail, and its command must pass.

`check` fails
 - if a piece to be replaced is not in its file exactly once;
 - if a function or an `impl` of `src` with an `unsafe` is covered by no entry, or an entry
   covers none, or there are more or fewer of them than the list was made for;
 - if a test that an entry names does not exist;
 - if the tables of docs/assurance.md are not those of this list.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
LIST = ROOT / "scripts/breakages.json"
PAGE = ROOT / "docs/assurance.md"
SCRATCH = ROOT / "target/breakages"
# Longest that a command may take, in seconds: a broken lock waits for ever.
PATIENCE = 1800
KINDS = {
    "unsafe": "what an `unsafe` rests on",
    "protocol": "a step of a protocol between threads",
    "ordering": "an ordering, weakened",
}


def fail(message):
    print(f"breakages: {message}", file=sys.stderr)
    sys.exit(1)


def entries():
    return json.loads(LIST.read_text())["entries"]


def unsafe_counted():
    """How many `unsafe` each place had when the list was last gone through."""
    return json.loads(LIST.read_text())["unsafe"]


def code_of(line):
    """A line without its comment."""
    return re.sub(r"//.*", "", line)


def unsafe_places():
    """Every function or `impl` of `src` with an `unsafe` in it, as `file: name`, but for the
    models and for tests."""
    places = {}
    for path in sorted((ROOT / "src").rglob("*.rs")):
        file = str(path.relative_to(ROOT))
        if file.startswith("src/models/"):
            continue
        name = None
        for line in path.read_text().split("\n#[cfg(test)]\nmod tests")[0].splitlines():
            code = code_of(line)
            found = re.search(r"\bfn (\w+)", code) or re.search(r"\bunsafe (impl.*?) (?:\{|where)", code)
            if found:
                name = re.sub(r"<[^<>]*(<[^<>]*>)?[^<>]*>", "", found[1]).strip()
            if re.search(r"\bunsafe\b(?!_)", code) and not code.lstrip().startswith("#"):
                places.setdefault(f"{file}: {name}", 0)
                places[f"{file}: {name}"] += 1
    return places


def test_exists(name):
    """Whether a test, an assertion at compile time, or a file of tests has this name."""
    last = name.split("::")[-1]
    wanted = re.compile(rf"\b(fn|macro_rules!) {re.escape(last)}\b")
    for folder in ("src", "tests", "tune", "fuzz", "scripts", "benches"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".rs", ".sh", ".py") and "target" not in path.parts:
                if path.stem == last or wanted.search(path.read_text()):
                    return True
    return False


def table(kind):
    lines = ["| where | broken by | caught by |", "|---|---|---|"]
    for entry in entries():
        if entry["kind"] != kind:
            continue
        files = {}
        for cover in entry.get("covers", [f"{entry['file']}: "]):
            file, name = cover.split(": ")
            files.setdefault(file, []).extend([f"`{name}`"] if name else [])
        where = "; ".join(
            f"`{file.removeprefix('src/')}`" + (": " + ", ".join(names) if names else "")
            for file, names in files.items()
        )
        caught = ", ".join(f"`{test}`" for test in entry["caught_by"])
        lines.append(f"| {where} | {entry['what']} | {caught or 'nothing: ' + entry['why']} |")
    return "\n".join(lines) + "\n"


def page_with_tables(page):
    for kind in KINDS:
        marks = re.compile(rf"(<!-- breakages: {kind} -->\n).*?(<!-- end -->)", re.S)
        if not marks.search(page):
            fail(f"{PAGE.name} has no place for the table '{kind}'")
        page = marks.sub(lambda found: found[1] + table(kind) + found[2], page)
    return page


def check():
    places, covered = unsafe_places(), set()
    for at, entry in enumerate(entries()):
        where = f"entry {at} ({entry['what']})"
        if entry["kind"] not in KINDS:
            fail(f"{where}: no such kind: {entry['kind']}")
        count = (ROOT / entry["file"]).read_text().count(entry["find"])
        if count != 1:
            fail(f"{where}: what is to be replaced is {count} times in {entry['file']}")
        if not entry["caught_by"] and not entry.get("why"):
            fail(f"{where}: nothing catches it, and it does not say why")
        for test in entry["caught_by"]:
            if not test_exists(test):
                fail(f"{where}: there is no test {test}")
        for cover in entry.get("covers", []):
            if cover not in places:
                fail(f"{where}: there is no unsafe in {cover}")
            covered.add(cover)
    missing = sorted(set(places) - covered)
    if missing:
        fail("no entry covers the unsafe in " + "; ".join(missing))
    if places != unsafe_counted():
        changed = sorted(set(places.items()) ^ set(unsafe_counted().items()))
        fail(f"other `unsafe` than the list was made for: {changed}; see what they rest on")
    if page_with_tables(PAGE.read_text()) != PAGE.read_text():
        fail(f"{PAGE.name} is out of date; scripts/breakages.py tables")
    total = sum(places.values())
    print(f"breakages: {len(entries())} entries, {total} unsafe in {len(places)} places, all covered")


def copy_tree():
    """What git tracks, and what is new, in a folder whose targets are kept from run to run."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )
    names = {name for name in listed.stdout.splitlines() if (ROOT / name).is_file()}
    for folder in ("src", "tests", "benches", "examples", "fuzz", "tune"):
        for old in (SCRATCH / folder).rglob("*.rs"):
            if str(old.relative_to(SCRATCH)) not in names:
                old.unlink()
    for name in names:
        source, copy = ROOT / name, SCRATCH / name
        if not (copy.exists() and copy.read_bytes() == source.read_bytes()):
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
            shutil.copymode(source, copy)


def execute(command):
    """What a command says, and whether it failed; `None` if it had to be ended."""
    process = subprocess.Popen(
        command, shell=True, cwd=SCRATCH, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
    )
    try:
        output, _ = process.communicate(timeout=PATIENCE)
        return output, process.returncode != 0
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        return output, None


def is_as_listed(entry, output, failed):
    if not entry["caught_by"]:
        return failed is False
    if failed is None:
        return entry.get("hangs", False)
    built = "could not compile" not in output
    if entry.get("compile_error", False):
        return failed and not built
    # A test that says so, a program without cargo's harness, or one that ended with all its tests.
    said = any(
        re.search(rf"\b{re.escape(name)}\b[^\n]*FAILED|--test {re.escape(name)}`", output)
        for name in (test.split("::")[-1] for test in entry["caught_by"])
    )
    ended = "process didn't exit successfully" in output
    return failed and built and (said or ended)


def run(words):
    chosen = [e for e in entries() if all(w in json.dumps(e) for w in words)]
    others = 0
    copy_tree()
    for entry in chosen:
        source = SCRATCH / entry["file"]
        whole = source.read_text()
        source.write_text(whole.replace(entry["find"], entry["replace"]))
        try:
            output, failed = execute(entry["command"])
        finally:
            source.write_text(whole)
        verdict = {True: "caught", False: "not caught", None: "hangs"}[failed]
        if not is_as_listed(entry, output, failed):
            others += 1
            verdict += ", NOT AS THE LIST SAYS"
            (SCRATCH / "last-output").write_text(output)
        print(f"{verdict}: {entry['file']}: {entry['what']}", flush=True)
    print(f"breakages: {len(chosen)} run, {others} not as the list says")
    sys.exit(1 if others or not chosen else 0)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["check"]:
            check()
        case ["tables"]:
            PAGE.write_text(page_with_tables(PAGE.read_text()))
        case ["run", *words]:
            run(words)
        case _:
            print(__doc__, file=sys.stderr)
            sys.exit(2)
