#!/usr/bin/env python3
"""What the packages depend on, beside what docs/dependencies.md says:

    scripts/dependencies.py            fails on what is forbidden, and on a difference
    scripts/dependencies.py --update   writes the tables anew, if nothing is forbidden

Reads what `cargo metadata --locked` says, and looks up nothing else: known vulnerabilities, which
are in a database, it does not see.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LISTING = ROOT / "docs/dependencies.md"
# Its tables are made here, between these two lines; the rest is written by hand.
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"

# Licences that ask for no more than to be named. Of an expression with `OR`, one is enough.
ALLOWED = {
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
}
# And those of packages that no published one depends on.
ALLOWED_UNPUBLISHED = ALLOWED | {"NCSA"}  # libFuzzer

REGISTRY = "registry+https://github.com/rust-lang/crates.io-index"

# What the crate asks of the system, beside what the standard library does for it.
SYSTEM_CALLS = {
    "CLOCK_MONOTONIC_COARSE",
    "MADV_DONTNEED",
    "MEMBARRIER_CMD_PRIVATE_EXPEDITED",
    "MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED",
    "SIG_SETMASK",
    "SYS_membarrier",
    "_SC_PAGESIZE",
    "c_int",
    "clock_gettime",
    "madvise",
    "malloc_trim",
    "pthread_sigmask",
    "sigfillset",
    "sigset_t",
    "syscall",
    "sysconf",
    "timespec",
}

# Versions below these have a fault that RustSec lists: no Cargo.toml may allow them.
NOT_BELOW = {
    "bytes": ((1, 11, 1), "RUSTSEC-2026-0007"),
    "crossbeam-queue": ((0, 2, 3), "RUSTSEC-2022-0021"),
    "thread_local": ((1, 1, 4), "RUSTSEC-2022-0006"),
    "tokio": ((1, 44, 2), "RUSTSEC-2025-0023"),
}

found = []  # what is forbidden


def refuse(what):
    found.append(what)


# ---- licences ----


def satisfied(expression, allowed):
    """Whether licences in `allowed` are enough for an SPDX expression.

    An older form has `/` for `OR`. `WITH` binds more than `AND`, and that more than `OR`.
    """
    tokens = re.findall(r"[()]|[^\s()]+", expression.replace("/", " OR "))
    at = 0

    def peek():
        return tokens[at] if at < len(tokens) else None

    def take():
        nonlocal at
        at += 1
        return tokens[at - 1]

    def alternatives():
        result = terms()
        while peek() == "OR":
            take()
            more = terms()
            result = result or more
        return result

    def terms():
        result = term()
        while peek() == "AND":
            take()
            more = term()
            result = result and more
        return result

    def term():
        if peek() in (None, ")", "AND", "OR", "WITH"):
            raise ValueError(expression)
        if peek() == "(":
            take()
            result = alternatives()
            if peek() != ")":
                raise ValueError(expression)
            take()
            return result
        name = take()
        if peek() == "WITH":
            take()
            if peek() in (None, "(", ")", "AND", "OR", "WITH"):
                raise ValueError(expression)
            name = f"{name} WITH {take()}"
        return name in allowed

    result = alternatives()
    if peek() is not None:
        raise ValueError(expression)
    return result


def check_parser():
    assert oldest("^1.9") < (1, 11, 1) <= oldest("^1.11.1") < oldest("=1.12.0")
    assert oldest("*") < (0, 0, 1)
    for expression, expected in [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("MIT OR GPL-3.0-only", True),
        ("GPL-3.0-only OR MIT", True),
        ("MIT/GPL-3.0", True),
        ("MIT AND GPL-3.0-only", False),
        ("MIT AND GPL-3.0-only OR Zlib", True),
        ("MIT OR GPL-3.0-only AND AGPL-3.0-only", True),
        ("GPL-3.0-only AND MIT OR AGPL-3.0-only", False),
        ("(MIT OR GPL-3.0-only) AND Unicode-3.0", True),
        ("(MIT OR GPL-3.0-only) AND LGPL-3.0-only", False),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("GPL-3.0-only WITH GCC-exception-3.1", False),
    ]:
        assert satisfied(expression, ALLOWED) is expected, expression
    for broken in ["", "MIT OR", "(MIT", "MIT Zlib", "MIT)", "MIT WITH", "AND MIT"]:
        try:
            satisfied(broken, ALLOWED)
        except ValueError:
            continue
        raise AssertionError(broken)


# ---- packages ----


def cargo(*arguments):
    command = ["cargo", *arguments]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def metadata(manifest):
    return json.loads(
        cargo(
            *["metadata", "--locked", "--all-features", "--format-version", "1"],
            *["--manifest-path", str(manifest)],
        )
    )


def built_with(name, *features):
    """The names and versions of what is built with a package, and for `--cfg loom` or shuttle."""
    lines = cargo(
        *["tree", "--locked", "--package", name, *features],
        *["--edges", "normal,build", "--target", "all", "--prefix", "none", "--format", "{p}"],
    )
    return {tuple(line.replace(" v", " ").split()[:2]) for line in lines.splitlines()}


def has_build_script(package):
    return any("custom-build" in target["kind"] for target in package["targets"])


def check_packages(meta, allowed):
    """What holds for each package of a lock file, those for tests included."""
    ours = set(meta["workspace_members"])
    for package in meta["packages"]:
        name = f"{package['name']} {package['version']}"
        licence = package["license"]
        unpublished = package["source"] is None and package["publish"] == []
        try:
            if licence is None and unpublished:
                pass  # that of the repository
            elif not licence or not satisfied(licence, allowed):
                refuse(f"{name}: licence {licence!r} is not allowed")
        except ValueError:
            refuse(f"{name}: licence {licence!r} is no SPDX expression")
        if package["source"] is None:
            # Found by its path: ours, or a workspace of ours beside this one.
            if ROOT not in Path(package["manifest_path"]).resolve().parents:
                refuse(f"{name}: lies outside this repository")
            if has_build_script(package):
                refuse(f"{name}: has a build script")
        elif package["source"] != REGISTRY:
            refuse(f"{name}: is from {package['source']}")
        if package["id"] in ours:
            for dependency in package["dependencies"]:
                if dependency["req"] == "*" and not dependency.get("path"):
                    refuse(f"{name}: takes any version of {dependency['name']}")
                least, fault = NOT_BELOW.get(dependency["name"], ((), ""))
                if oldest(dependency["req"]) < least:
                    refuse(f"{name}: takes {dependency['name']} {dependency['req']}: {fault}")


def oldest(requirement):
    """The oldest version that a requirement of Cargo's allows, of the forms used here."""
    return tuple(int(part) for part in requirement.lstrip("^=").replace("*", "0").split("."))


def note_duplicates(meta):
    versions = {}
    for package in meta["packages"]:
        versions.setdefault(package["name"], []).append(package["version"])
    for name, several in sorted(versions.items()):
        if len(several) > 1:
            print(f"more than one version: {name} {', '.join(sorted(several))}")


def shipped(meta, name, *features):
    """The packages that a program which depends on `name` builds, each with its condition.

    Not those for tests, and not those for `--cfg loom` or `shuttle`, which build the models.
    """
    built = built_with(name, *features)
    packages = {package["id"]: package for package in meta["packages"]}
    nodes = {node["id"]: node for node in meta["resolve"]["nodes"]}
    (root,) = (p for p in meta["packages"] if p["name"] == name and p["source"] is None)
    optional = {d["name"] for d in root["dependencies"] if d["optional"]}
    conditions = {}
    queue = [(root["id"], None)]
    while queue:
        at, inherited = queue.pop(0)
        for dependency in nodes[at]["deps"]:
            for kind in dependency["dep_kinds"]:
                if kind["kind"] == "dev" or kind["target"] in ("cfg(loom)", "cfg(shuttle)"):
                    continue
                package = packages[dependency["pkg"]]
                condition = inherited
                if at == root["id"] and package["name"] in optional:
                    condition = f"feature `{package['name']}`"
                elif kind["target"]:
                    condition = inherited or f"`{kind['target']}`"
                known = conditions.get(dependency["pkg"], "unknown")
                if known == "unknown" or (known is not None and condition is None):
                    conditions[dependency["pkg"]] = condition
                    queue.append((dependency["pkg"], condition))
    listed = [(packages[id], condition) for id, condition in conditions.items()]
    listed.sort(key=lambda pair: (pair[0]["name"], pair[0]["version"]))
    # `metadata` has what the lock file has: also what some other feature would need.
    return [pair for pair in listed if (pair[0]["name"], pair[0]["version"]) in built]


def table(meta, name, *features):
    rows = [
        f"### {name}",
        "",
        "| package | licence | only with | build script |",
        "|---|---|---|---|",
    ]
    for package, condition in shipped(meta, name, *features):
        if package["source"] is None:
            continue  # ours, in a table of its own
        script = "yes" if has_build_script(package) else ""
        rows.append(f"| {package['name']} | {package['license']} | {condition or ''} | {script} |")
    return rows


# ---- sources ----


def code(path):
    """A source file without its comments. (None here has `//` in a string.)"""
    return re.sub(r"//[^\n]*", "", path.read_text())


def check_sources():
    """The pool opens no connection, starts no process and touches no file."""
    for path in sorted((ROOT / "src").rglob("*.rs")):
        text, name = code(path), path.relative_to(ROOT)
        text = text.split("\n#[cfg(test)]\nmod tests")[0]  # which are at the end, and not in it
        for use in re.findall(r"\b(?:std|core)\s*::\s*(?:\{[^;]*?\b|)(net|process|fs)\b", text):
            refuse(f"{name}: uses std::{use}")
        for call in re.findall(r"\blibc\s*::\s*(\w+|\{[^}]*\}|\*)", text):
            if call not in SYSTEM_CALLS:
                refuse(f"{name}: uses libc::{call}, which is not among those stated here")


def main():
    if sys.argv[1:] not in ([], ["--update"]):
        sys.exit("usage: scripts/dependencies.py [--update]")
    check_parser()
    check_sources()
    meta = metadata(ROOT / "Cargo.toml")
    check_packages(meta, ALLOWED)
    note_duplicates(meta)
    beside = ROOT / "fuzz/Cargo.toml"  # with a lock file of its own
    if beside.exists():
        check_packages(metadata(beside), ALLOWED_UNPUBLISHED)

    # The program turns no feature of the library on.
    tables = "\n".join(
        [*table(meta, "tierpool", "--all-features"), "", *table(meta, "tierpool-tune")]
    )
    text = LISTING.read_text()
    before, rest = text.split(BEGIN)
    listed, after = rest.split(END)
    update = sys.argv[1:] == ["--update"]
    if listed.strip() != tables and not update:
        for row in sorted(set(tables.splitlines()) ^ set(listed.strip().splitlines())):
            print("+" if row in tables else "-", row, file=sys.stderr)
        refuse(f"{LISTING.relative_to(ROOT)} has other tables: --update, if that is meant")
    for what in found:
        print(what, file=sys.stderr)
    if found:
        sys.exit(1)
    if update:
        LISTING.write_text(f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}")
        print(f"written: {LISTING.relative_to(ROOT)}")
    else:
        print(f"{len(meta['packages'])} packages: licences, sources and tables are as stated")


main()
