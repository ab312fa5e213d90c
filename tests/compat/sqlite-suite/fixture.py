"""SQLite's test program, with Throng in it: the source from Debian's package, the engine with fault injection from meson.

All of it is below build/sqlite-suite/. What is there is not made again; the objects of SQLite, which take minutes, depend
on the package alone.
"""
# SPDX-License-Identifier: MIT
import concurrent.futures
import fcntl
import glob
import os
import re
import shlex
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.abspath(os.path.join(HERE, "..", "..", ".."))
WORK = os.path.join(ROOT, "build", "sqlite-suite")
SOURCE = os.path.join(WORK, "source")
VERSION = "3.40.1"
SKIPPED = 77
TCL = "/usr/lib/tcl8.6"

# What a variant is compiled with. `checkpoint` is `rel`, with a checkpoint due after nearly each transaction.
VARIANTS = {
    "rel": {"program": "rel"},
    "checkpoint": {"program": "rel", "checkpoint": "4096"},
    "debug": {"program": "debug"},
    "asan": {"program": "asan"},
}
PROGRAMS = {
    "rel": {"cflags": "-O1 -w", "meson": []},
    "debug": {"cflags": "-O1 -w -DSQLITE_DEBUG", "meson": ["-Dslow_asserts=true"]},
    "asan": {
        "cflags": "-O1 -g1 -w -fsanitize=address,undefined -fno-sanitize-recover=undefined",
        "meson": ["-Db_sanitize=address,undefined", "-Dslow_asserts=true"],
    },
}


def step(command, cwd=None, log=None, env=None, skip=None):
    """A step of the build; its output goes to a file, and is shown if it fails. `skip`: then it is not our fault."""
    with open(log or os.devnull, "w") as out:
        code = subprocess.run(command, cwd=cwd, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                              env=env).returncode
    if code == 0:
        return
    if log:
        sys.stderr.write("".join(open(log, errors="replace").readlines()[-20:]))
    if skip:
        print(f"sqlite-suite: SKIPPED: {skip}: {shlex.join(command)}", flush=True)
        sys.exit(SKIPPED)
    sys.exit(f"sqlite-suite: failed: {shlex.join(command)}")


def apt_options():
    """The machine's own package sources, asked for source packages, in a folder of ours: nothing of the machine changes."""
    folder = os.path.join(WORK, "apt")
    parts = os.path.join(folder, "parts")
    shutil.rmtree(parts, ignore_errors=True)
    for name in ("lists/partial", "cache/archives/partial", "parts"):
        os.makedirs(os.path.join(folder, name), exist_ok=True)
    for path in ["/etc/apt/sources.list", *glob.glob("/etc/apt/sources.list.d/*")]:
        if not os.path.isfile(path):
            continue
        text = open(path).read()
        if path.endswith(".sources"):
            text = re.sub(r"(?m)^Types:.*$", "Types: deb-src", text)
        elif path.endswith(".list"):
            text = re.sub(r"(?m)^deb\s", "deb-src ", text)
        else:
            continue
        if "debian" in text:
            open(os.path.join(parts, os.path.basename(path)), "w").write(text)
    return ["-o", "Dir::Etc::SourceList=/dev/null", "-o", f"Dir::Etc::SourceParts={parts}",
            "-o", f"Dir::State::Lists={folder}/lists", "-o", f"Dir::Cache={folder}/cache", "-o", "APT::Sandbox::User=root"]


def fetch():
    if os.path.exists(os.path.join(SOURCE, "test", "tester.tcl")):
        return
    print("sqlite-suite: fetching SQLite's source package", flush=True)
    why = "SQLite's source package cannot be had (no network, or not Debian)"
    options = apt_options()
    step(["apt-get", "-q", *options, "update"], log=os.path.join(WORK, "update.log"), skip=why)
    fetched = os.path.join(WORK, "fetched")
    shutil.rmtree(fetched, ignore_errors=True)
    os.makedirs(fetched)
    step(["apt-get", "-q", *options, "source", "sqlite3"], cwd=fetched, log=os.path.join(WORK, "fetch.log"), skip=why)
    found = os.path.join(fetched, f"sqlite3-{VERSION}")
    if not os.path.isdir(found):
        print(f"sqlite-suite: SKIPPED: Debian's sqlite3 is not {VERSION}: {' '.join(os.listdir(fetched))}", flush=True)
        sys.exit(SKIPPED)
    for name in ("tester.tcl", "lock_common.tcl", "malloc_common.tcl"):
        with open(os.path.join(found, "test", name), "a") as file:
            file.write("\nsource $::env(THRONG_HARNESS)\n")
    os.rename(found, SOURCE)


def newest(paths):
    return max(os.path.getmtime(path) for path in paths)


def engine(program):
    """The engine with fault injection. That of build/ is the one that the other tests have."""
    folder = os.path.join(ROOT, "build" if program == "rel" else f"build-suite-{program}")
    if not os.path.exists(os.path.join(folder, "build.ninja")):
        step(["meson", "setup", folder, *PROGRAMS[program]["meson"]], cwd=ROOT, log=os.path.join(WORK, "meson.log"))
    step(["ninja", "-C", folder, "src/libthrong-faulty.a"], log=os.path.join(WORK, "ninja.log"))
    return os.path.join(folder, "src", "libthrong-faulty.a")


def debian_options():
    rules = open(os.path.join(SOURCE, "debian", "rules")).read()
    flags = rules[rules.index("export CFLAGS"):rules.index("configure: configure-stamp")]
    return re.findall(r"-DSQLITE_[A-Z0-9_]+(?:=\w+)?", flags)


def configure(folder):
    os.makedirs(folder)
    step([os.path.join(SOURCE, "configure"), "--enable-threadsafe", "--enable-load-extension", "--enable-json",
          "--enable-fts4", "--enable-fts5", "--enable-session", f"--with-tcl={TCL}"], cwd=folder,
         log=os.path.join(WORK, "configure.log"), env={**os.environ, "CFLAGS": "-O1 -w"})
    step(["make", "sqlite3.c"], cwd=folder, log=os.path.join(WORK, "amalgamation.log"))


def compile_all(folder, cflags):
    """The objects of SQLite's test program, by what its Makefile would run. Throng has no part in them."""
    text = subprocess.run(["make", "-n", "testfixture"], cwd=folder, capture_output=True, text=True).stdout
    link = next(line for line in text.replace("\\\n", " ").splitlines() if "-o testfixture" in line)
    words = shlex.split(link)
    flags = [word for word in words if re.match(r"-[DI]", word)]
    flags += debian_options() + ["-DSQLITE_EXTRA_INIT=throng_suite_init"]
    objects, jobs = [], []
    os.makedirs(os.path.join(folder, "objects"), exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for source in [word for word in words if word.endswith(".c")]:
            target = os.path.join(folder, "objects", os.path.basename(source)[:-2] + ".o")
            objects.append(target)
            if not os.path.exists(target):
                jobs.append(pool.submit(step, ["gcc", *cflags, *flags, "-c", "-o", target,
                                               os.path.join(folder, source)], folder, target + ".log"))
        for job in jobs:
            job.result()
    return objects, [word for word in words if word.startswith("-l")]


def build(program, library=None):
    """The test program. `library`: the engine, if meson has built it; else it is built."""
    os.makedirs(WORK, exist_ok=True)
    lock = open(os.path.join(WORK, "lock"), "w")
    fcntl.flock(lock, fcntl.LOCK_EX)    # until the end of this function
    if not os.path.exists(os.path.join(TCL, "tclConfig.sh")):
        print("sqlite-suite: SKIPPED: Tcl is missing (Debian: tcl8.6-dev dpkg-dev zlib1g-dev)", flush=True)
        sys.exit(SKIPPED)
    fetch()
    library = os.path.abspath(library) if library else engine(program)
    folder = os.path.join(WORK, program)
    target = os.path.join(folder, "fixture")    # not testfixture, which make would take for its own
    ours = glob.glob(os.path.join(HERE, "*.c"))
    if os.path.exists(target) and os.path.getmtime(target) > newest([library, *ours]):
        return target
    print(f"sqlite-suite: building SQLite's test program ({program})", flush=True)
    cflags = PROGRAMS[program]["cflags"].split()
    if not os.path.exists(os.path.join(folder, "sqlite3.c")):
        shutil.rmtree(folder, ignore_errors=True)
        configure(folder)
    objects, libraries = compile_all(folder, cflags)
    # The engine asks for an option of the database's URI: inject.c answers from the environment.
    step(["gcc", *cflags, "-DTHR_FAULTS", f"-I{ROOT}/include", "-Wl,--wrap=sqlite3_uri_parameter", "-o", target + ".new", *ours,
          *objects, library, *libraries, "-ltcl8.6", "-lxxhash", "-lpthread", "-ldl", "-lm", "-lz"], cwd=folder,
         log=os.path.join(WORK, "link.log"))
    os.rename(target + ".new", target)
    return target
