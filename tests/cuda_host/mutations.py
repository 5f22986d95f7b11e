#!/usr/bin/env python3
"""Shows that the checks of the emulated GPU catch mistakes: makes one in a copy of a kernel's source, builds, runs, expects a failure.

mutations.py BUILD_DIR [--only TEXT] [--readers TEXT] [--list] [--every N] [--no-full]

BUILD_DIR holds a built test_cuda_host_checked. The mistakes: every barrier dropped; every bound of a loop and every guard off by one;
every index of a shared variable off by one. --only takes those whose description has TEXT ("reduce.cu", "barrier"), --every N each
Nth, --list only prints them. --readers builds a header's mistakes into the kernels with TEXT in their name only, and runs their cases.
What the short list of cases does not catch is tried on all of them (--no-full: not). Half a minute each.
Ends with 1 when a mistake survived that is not in EQUIVALENT.
"""

import argparse
import json
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Changes that are no mistakes: part of the description, and why nobody can tell the difference.
EQUIVALENT = {
    "assign.cu:153 loop bound": "a chunk without candidates draws the best anew from the best",
    "assign.cu:195 guard": "the thread more finds no place: at most `found` anchors are before it",
    "reduce.cuh:61 loop bound": "no lane takes from a lane 32 below",
    "conv_rungs.cu:97 loop bound": "the row more is in an array of the thread, which no check can watch, and is not stored",
    "detect.cu:71 loop bound": "the round more has no class",
    "detect.cu:176 loop bound": "the row more is not written yet, and in the tests NaN, which suppresses nothing",
    "detect.cu:227 loop bound": "all rows are there: the window more adds none",
    "mask_patches.cu:78 loop bound": "the cell more has a place in the array, and nobody reads it",
    "augment.cu:26 loop bound": "what lies behind the tiles, read as one, covers no pixel",
    "augment.cu:61 guard": "at the edge itself all taps are border",
    "augment.cu:92 guard": "hue 0 becomes 180, which becomes 0",
    "assign.cu:254 guard": "reads one element past target, which in the tests is a guard that reads as no positive",
}


# Test cases that check a kernel which is no op of the suite, or all of its cases in little time.
CASES = {"cuda/augment.cu": "augmentation*", "cuda/detect.cu": "*of detection", "cuda/mask_patches.cu": "*of detection",
         "cuda/conv_wgmma.cu": "warpgroup*", "cuda/conv_patch.cu": "warpgroup*", "cuda/device/warpgroup.cuh": "warpgroup*",
         "bench/kernels/cuda/conv_rungs.cu": "ladder*", "bench/kernels/cuda/norm_rungs.cu": "ladder*"}


def closing(text, at):
    """Position of the bracket that closes the one at `at`."""
    pair = text[at] + {"(": ")", "{": "}"}[text[at]]
    depth = 0
    for end in range(at, len(text)):
        depth += (text[end] == pair[0]) - (text[end] == pair[1])
        if depth == 0:
            return end
    return len(text)


def bodies(text):
    """(begin, end) of the body of every function that runs on the device."""
    for match in re.finditer(r"\b__(?:global|device)__\b(?:[^(;{]*__launch_bounds__\([^()]*\))?(?:[^(;{]*operator\(\))?[^(;{]*\(", text):
        after = closing(text, match.end() - 1) + 1
        begin = text.find("{", after)
        if begin >= 0 and ";" not in text[after:begin]:  # else a declaration
            yield begin, closing(text, begin)


def mistakes(text):
    """(position, length, replacement, kind) of every mistake to make."""
    seen = set()
    for begin, end in bodies(text):
        body = text[begin:end]
        found = [(m, ";", "no barrier") for m in re.finditer(r"__sync(?:threads|warp)\([^()]*\);", body)]
        for m in re.finditer(r"for \([^;]*;([^;]*[^<]) < ([^;]*);", body):
            if len(m[2]) == 1:
                continue  # a template's N: an array of the thread, in registers or on its stack, which no check can watch
            found.append((m, m.group().replace(f"{m[1]} < ", f"{m[1]} <= "), "loop bound"))
        for m in re.finditer(r"if \([^{};]* >= [^{};]*\) (?:return|continue|break)", body):
            found.append((m, m.group().replace(" >= ", " > ", 1), "guard"))
        for m in re.finditer(r"if \([^{};<]* < [^{};<]*\)", body):
            found.append((m, m.group().replace(" < ", " <= ", 1), "guard"))
        shared = re.findall(r"TESSERA_SHARED\((\w+),", body) + re.findall(r"TESSERA_DYNAMIC_SHARED\([^,]+, (\w+)\)", body)
        for name in set(shared):
            for m in re.finditer(rf"\b{name}\[([^\[\]]+)\]", body):
                found.append((m, f"{name}[{m[1]} + 1]", "index"))
        for m, replacement, kind in found:
            comment = body.rfind("//", body.rfind("\n", 0, m.start()) + 1, m.start())
            if comment < 0 and (begin + m.start(), kind) not in seen:
                seen.add((begin + m.start(), kind))
                yield begin + m.start(), len(m.group()), replacement, kind


def included(path, known={}):
    """Files of cuda/ that a file reads, itself among them."""
    if path not in known:
        known[path] = {path}
        for name in re.findall(r'#include "(cuda/[^"]+)"', (ROOT / path).read_text()):
            known[path] |= included(name)
    return known[path]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--readers", default="")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--no-full", action="store_true")
    args = parser.parse_args()

    kernels = sorted(str(p.relative_to(ROOT)) for folder in ("cuda", "bench/kernels/cuda") for p in ROOT.glob(f"{folder}/*.cu"))
    headers = sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("cuda/device/*.cuh"))
    todo = []
    for path in kernels + headers:
        text = (ROOT / path).read_text()
        for position, length, replacement, kind in mistakes(text):
            line = text.count("\n", 0, position) + 1
            old = " ".join(text[position : position + length].split())
            description = f"{path}:{line} {kind}: {old}" + ("" if kind == "no barrier" else f" -> {' '.join(replacement.split())}")
            if args.only in description:
                todo.append((path, text[:position] + replacement + text[position + length :], description))
    todo = todo[:: args.every]
    if args.list:
        print("\n".join(description for _, _, description in todo))
        return 0

    build = args.build.resolve()
    compile_one = {}
    for entry in json.loads((build / "compile_commands.json").read_text()):
        if "tessera_cuda_checked.dir" in entry["command"] and entry["file"].endswith(".cu"):
            compile_one[str(pathlib.Path(entry["file"]).relative_to(ROOT))] = shlex.split(entry["command"])
    steps = subprocess.run(["ninja", "-C", build, "-t", "commands", "test_cuda_host_checked"], capture_output=True, text=True, check=True)
    link = next(line for line in reversed(steps.stdout.splitlines()) if "-o bin/test_cuda_host_checked" in line)

    def passes(program, cases, seconds=600):
        try:
            run = subprocess.run([program, f"--test-case={cases}", "--no-skip"], capture_output=True, text=True, timeout=seconds)
        except subprocess.TimeoutExpired:
            return False, "does not end"
        said = re.search(r"emulated GPU, seed \d+: (.*)", run.stderr) or re.search(r"logged: (.*)", run.stdout)
        if not re.search(r"test cases: +[1-9]", run.stdout):
            sys.exit(f"{program} has no test case {cases}")
        return run.returncode == 0, said[1][:150] if said else f"ends with {run.returncode}"

    def outcome(path, text):
        """(survived, what was seen)"""
        with tempfile.TemporaryDirectory() as folder:
            copy = pathlib.Path(folder) / path
            copy.parent.mkdir(parents=True)
            copy.write_text(text)
            objects = []
            built_anew = [path] if path in kernels else [k for k in kernels if path in included(k) and args.readers in k]
            for kernel in built_anew:
                command = ["-O1" if word == "-O3" else word for word in compile_one[kernel]]  # building is most of the time
                objects.append(f"{folder}/{len(objects)}.o")
                command[command.index("-o") + 1] = objects[-1]
                if kernel == path:
                    command[command.index("-c") + 1] = str(copy)
                else:
                    command.insert(next(i for i, a in enumerate(command) if a.startswith("-I")), f"-I{folder}")
                built = subprocess.run(command, cwd=build, capture_output=True, text=True)
                if built.returncode != 0:
                    return False, "does not build: " + next((l for l in built.stderr.splitlines() if "error" in l), "")[:120]
            program = f"{folder}/program"
            # The mistaken objects come before the library, which then has nothing to add to them.
            command = link.replace("-o bin/test_cuda_host_checked", f"-o {program} {' '.join(objects)}")
            subprocess.run(command, shell=True, cwd=build, check=True, capture_output=True)
            cases = CASES.get(path) or (CASES.get(built_anew[0]) if args.readers else None)
            if cases:
                return passes(program, cases, 60)
            passed, said = passes(program, "*on a short list")
            if passed and not args.no_full:
                passed, said = passes(program, "*on every case")
            return passed, said

    good, said = passes(build / "bin/test_cuda_host_checked", "*on a short list")
    if not good:
        sys.exit(f"the kernels as they are do not pass: {said}")
    survivors = unbuilt = 0
    for number, (path, text, description) in enumerate(todo, 1):
        survived, said = outcome(path, text)
        reason = next((why for part, why in EQUIVALENT.items() if part in description), None)
        word = "no verdict" if said.startswith("does not build") else "caught" if not survived else "equivalent" if reason else "SURVIVED"
        survivors += word == "SURVIVED"
        unbuilt += word == "no verdict"
        print(f"{number}/{len(todo)} {word}: {description}\n    {said if not survived else reason or ''}", flush=True)
    print(f"{len(todo)} mistakes, {survivors} survived, {unbuilt} did not build")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
