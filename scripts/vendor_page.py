"""Fetch the npm packages of the web page, at pinned versions, and write asr/service/web/vendor/.

    python scripts/vendor_page.py

It needs npm and the registry. The result is committed, so neither the service nor its users need
npm. Both packages are bundled from their modules, because the published files are larger than the
page may be. VENDORED_PAGE.md beside this script says what differs from the packages and why.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

VENDOR: Final = Path(__file__).resolve().parent.parent / "asr/service/web/vendor"
REPORT_FILE: Final = Path(__file__).resolve().with_name("VENDORED_PAGE.md")
WAVESURFER: Final = "8.0.1"
TUS: Final = "4.3.1"
ESBUILD: Final = "0.25.12"
LICENCES: Final = {"wavesurfer": "BSD-3-Clause", "tus": "MIT"}
AWAITER: Final = re.compile(r"^var __awaiter = .*?^};\n", re.DOTALL | re.MULTILINE)
RUNNER: Final = """export const __awaiter = async (self, _, Promise_, generator) => {
  const steps = generator.call(self);
  let step = steps.next();
  while (!step.done) {
    let value;
    try { value = await step.value; } catch (error) { step = steps.throw(error); continue; }
    step = steps.next(value);
  }
  return step.value;
};
"""
"""Runs a generator as TypeScript's __awaiter does: each yielded promise is awaited."""
UNUSED: Final = (
    "webaudio.js",
    "fetcher.js",
    "base-plugin.js",
    "define-plugin.js",
    "reactive/drag-stream.js",
)
SOUND: Final = ("getVolume", "setVolume", "getMuted", "setMuted", "getPlaybackRate")
UNCALLED: Final = {
    "wavesurfer.js/dist/wavesurfer.js": (
        "getState",
        "getRenderer",
        "getActivePlugins",
        "loadBlob",
        "getDecodedData",
        "exportPeaks",
        "toggleInteraction",
        "setSinkId",
        "playPause",
        "skip",
        "empty",
        "stop",
        "exportImage",
        "getWidth",
        "getWrapper",
        "unregisterPlugin",
        "setMediaElement",
        "unsubscribePlayerEvents",
        *SOUND,
    ),
    "wavesurfer.js/dist/renderer.js": (
        "exportImage",
        "getVisibleRange",
        "getWidth",
        "getWrapper",
        "renderLineWaveform",
    ),
    "wavesurfer.js/dist/scope.js": ("interval", "observeResize", "raf"),
    "wavesurfer.js/dist/player.js": ("setMediaElement", "setSinkId", *SOUND),
    "tus-js-client/lib/browser/urlStorage.js": ("findAllUploads",),
    "tus-js-client/lib/noopUrlStorage.js": ("listAllUploads",),
    "tus-js-client/lib/upload.js": ("_startParallelUpload",),
}
"""Methods that neither the page nor the libraries call with the page's options."""
NEVER: Final = {
    "tus-js-client/lib/browser/fileReader.js": "isReactNative()",
    "tus-js-client/lib/browser/fileSignature.js": "isReactNative()",
    "tus-js-client/lib/browser/sources/FileSource.js": "isCordova()",
}
"""Conditions that are false in browsers. esbuild leaves the code behind them out."""
EMPTY: Final = "\n".join(
    (
        "export default class {}",
        "export const definePlugin = null;",
        "export const createDragStream = null;",
        "",
    )
)
"""What stands in place of wavesurfer.js's modules that the page does not use."""
SHIMS: Final = {
    "base64.js": "export const Base64 = {\n"
    "  encode: (text) => btoa(String.fromCharCode(...new TextEncoder().encode(text))),\n};\n",
    "url.js": "export default URL;\n",
}
PATCHES: Final = {
    "shadow.innerHTML = `": "const markup = `",
    "        return [div, shadow];\n": (
        '        const [rules, html] = markup.split("</style>");\n'
        "        const sheet = new CSSStyleSheet();\n"
        '        sheet.replaceSync(rules.slice(rules.indexOf(">") + 1));\n'
        "        shadow.adoptedStyleSheets = [sheet];\n"
        "        shadow.innerHTML = html;\n"
        "        return [div, shadow];\n"
    ),
}
"""Changes of wavesurfer.js's dist/renderer.js."""
REPORT: Final = """# Libraries of other people

`python scripts/vendor_page.py` makes `asr/service/web/vendor/`. Do not edit its files.

| file | package | licence | SHA-256 of the file |
| --- | --- | --- | --- |
{rows}

esbuild {esbuild} bundles their modules. Differences:

- `tus.js` (`lib/browser/`): the browser's `btoa` and `URL` replace `js-base64` and `url-parse`.
  `uriToBlob.js` and `sources/StreamSource.js` are empty, because the page sends files only.
  Private properties (`_name`) have short names.
- `wavesurfer.js` (`dist/wavesurfer.js`): its style rules are in a constructed style sheet,
  because the page's content security policy refuses a `<style>` element. Its modules share one
  short `__awaiter`. Modules without use are
  empty: {unused}
- Both lack methods without use: {uncalled}.
  Code for React Native and Cordova is left out, too.
"""


def main() -> None:
    """Write all files of the folder."""
    VENDOR.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        packages = [f"wavesurfer.js@{WAVESURFER}", f"tus-js-client@{TUS}", f"esbuild@{ESBUILD}"]
        command = ["npm", "install", "--prefix", name, "--no-audit", "--no-fund", *packages]
        subprocess.run(command, check=True)
        _prune(home / "node_modules")
        _wavesurfer(home)
        _tus(home)
    rows = [
        _row("tus", f"tus-js-client {TUS}"),
        _row("wavesurfer", f"wavesurfer.js {WAVESURFER}"),
    ]
    uncalled = ", ".join(sorted({f"`{it}`" for own in UNCALLED.values() for it in own}))
    text = REPORT.format(
        rows="\n".join(rows), esbuild=ESBUILD, unused=", ".join(UNUSED), uncalled=uncalled
    )
    REPORT_FILE.write_text(text)


def _prune(packages: Path) -> None:
    """Leave out what the page does not use."""
    for name, methods in UNCALLED.items():
        for method in methods:
            pattern = rf"^( +){method}\(.*?^\1\}}\n"
            _replace(packages / name, re.compile(pattern, re.DOTALL | re.MULTILINE), "")
    for name, condition in NEVER.items():
        _replace(packages / name, re.compile(re.escape(condition)), "false")


def _replace(path: Path, pattern: re.Pattern[str], new: str) -> None:
    text, n_found = pattern.subn(new, path.read_text(encoding="utf-8"))
    if n_found != 1:
        raise SystemExit(f"{path.name} has changed: {pattern.pattern!r} is in it {n_found} times")
    path.write_text(text, encoding="utf-8")


def _wavesurfer(home: Path) -> None:
    package = home / "node_modules/wavesurfer.js"
    renderer = package / "dist/renderer.js"
    text = renderer.read_text()
    for old, new in PATCHES.items():
        if text.count(old) != 1:
            raise SystemExit(f"wavesurfer.js has changed: {old!r} is not once in its renderer.js")
        text = text.replace(old, new)
    renderer.write_text(text)
    _share_awaiter(package / "dist")
    for unused in UNUSED:
        (package / "dist" / unused).write_text(EMPTY)
    _bundle(home, package / "dist/wavesurfer.js", "wavesurfer")
    shutil.copy(package / "LICENSE", VENDOR / "wavesurfer.LICENSE.txt")


def _share_awaiter(dist: Path) -> None:
    """Replace the helper that TypeScript writes into each module by a shorter one in one module."""
    for path in dist.glob("*.js"):
        text = path.read_text()
        found = AWAITER.search(text)
        if found:
            (dist / "awaiter.js").write_text(RUNNER)
            path.write_text(
                'import { __awaiter } from "./awaiter.js";\n' + text.replace(found[0], "")
            )


def _tus(home: Path) -> None:
    for name, text in SHIMS.items():
        (home / name).write_text(text)
    package = home / "node_modules/tus-js-client"
    (package / "lib/browser/sources/StreamSource.js").write_text(EMPTY)
    (package / "lib/browser/uriToBlob.js").write_text(EMPTY)
    aliases = [f"--alias:js-base64={home}/base64.js", f"--alias:url-parse={home}/url.js"]
    _bundle(home, package / "lib/browser/index.js", "tus", "--mangle-props=^_", *aliases)
    shutil.copy(package / "LICENSE", VENDOR / "tus.LICENSE.txt")


def _bundle(home: Path, entry: Path, name: str, *more: str) -> None:
    options = ["--bundle", "--minify", "--format=esm", "--target=es2022"]
    options += ["--drop:console", "--log-level=warning"]
    command = [str(home / "node_modules/.bin/esbuild"), str(entry), *options, *more]
    subprocess.run([*command, f"--outfile={VENDOR / name}.js"], check=True)


def _row(name: str, package: str) -> str:
    digest = hashlib.sha256((VENDOR / f"{name}.js").read_bytes()).hexdigest()
    return f"| `{name}.js` | {package} | {LICENCES[name]} (`{name}.LICENSE.txt`) | `{digest}` |"


if __name__ == "__main__":
    main()
