"""Fetch the npm packages of the web page, at pinned versions, and write asr/service/web/vendor/.

    python scripts/vendor_page.py

It needs npm and the registry. The result is committed, so neither the service nor its users need
npm. Two things differ from the packages, and VENDORED.md in that folder says so:

- tus-js-client is bundled from its modules for present browsers. The published bundle is 87 kB,
  because it carries Base64 and URL parsers that every browser has.
- wavesurfer.js writes its style rules into a ``<style>`` element, which the page's content security
  policy refuses. They go into a constructed style sheet instead.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

VENDOR: Final = Path(__file__).resolve().parent.parent / "asr/service/web/vendor"
WAVESURFER: Final = "8.0.1"
TUS: Final = "4.3.1"
ESBUILD: Final = "0.25.12"
STYLE: Final = "return e.innerHTML=`"
END: Final = "`,[t,e]}"
TO_SHEET: Final = (
    'return((t,h)=>{const[a,b]=h.split("</style>"),s=new CSSStyleSheet;'
    's.replaceSync(a.slice(a.indexOf(">")+1));t.adoptedStyleSheets=[s];t.innerHTML=b})(e,`'
)
SHIMS: Final = {
    "base64.js": "export const Base64 = {\n"
    "  encode: (text) => btoa(String.fromCharCode(...new TextEncoder().encode(text))),\n};\n",
    "url.js": "export default URL;\n",
}
REPORT: Final = """# Libraries of other people

`python scripts/vendor_page.py` makes this folder. Do not edit its files.

| file | package | licence | SHA-256 of the file |
| --- | --- | --- | --- |
{rows}

- `tus.js`: the package's modules `lib/browser/`, bundled by esbuild {esbuild} for ES2022. `js-base64` and
  `url-parse` are replaced by the browser's `btoa` and `URL`.
- `wavesurfer.js`: `dist/wavesurfer.esm.js` (SHA-256 `{original}`). Its
  style rules are put into a constructed style sheet instead of a `<style>` element, which the page's
  content security policy refuses.
"""


def main() -> None:
    """Write all files of the folder."""
    VENDOR.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        packages = [f"wavesurfer.js@{WAVESURFER}", f"tus-js-client@{TUS}", f"esbuild@{ESBUILD}"]
        command = ["npm", "install", "--prefix", name, "--no-audit", "--no-fund", *packages]
        subprocess.run(command, check=True)
        original = _wavesurfer(home / "node_modules/wavesurfer.js")
        _tus(home)
    _report(original)


def _wavesurfer(package: Path) -> str:
    """Write the patched module; returns the SHA-256 of the original."""
    text = (package / "dist/wavesurfer.esm.js").read_text()
    before, found, after = text.partition(STYLE)
    html, ended, rest = after.partition(END)
    if not found or not ended or STYLE in rest:
        raise SystemExit("wavesurfer.js has changed: look at its initHtml() and adapt the patch")
    (VENDOR / "wavesurfer.js").write_text(f"{before}{TO_SHEET}{html}`){END[1:]}{rest}")
    shutil.copy(package / "LICENSE", VENDOR / "wavesurfer.LICENSE.txt")
    return hashlib.sha256(text.encode()).hexdigest()


def _tus(home: Path) -> None:
    for name, text in SHIMS.items():
        (home / name).write_text(text)
    package = home / "node_modules/tus-js-client"
    command = [
        str(home / "node_modules/.bin/esbuild"),
        str(package / "lib/browser/index.js"),
        "--bundle",
        "--minify",
        "--format=esm",
        "--target=es2022",
        f"--alias:js-base64={home / 'base64.js'}",
        f"--alias:url-parse={home / 'url.js'}",
        f"--outfile={VENDOR / 'tus.js'}",
    ]
    subprocess.run(command, check=True)
    shutil.copy(package / "LICENSE", VENDOR / "tus.LICENSE.txt")


def _report(original: str) -> None:
    packages = {
        "tus.js": (f"tus-js-client {TUS}", "MIT (tus.LICENSE.txt)"),
        "wavesurfer.js": (f"wavesurfer.js {WAVESURFER}", "BSD-3-Clause (wavesurfer.LICENSE.txt)"),
    }
    rows = [
        f"| `{name}` | {package} | {licence} | `{_digest(name)}` |"
        for name, (package, licence) in packages.items()
    ]
    text = REPORT.format(rows="\n".join(rows), esbuild=ESBUILD, original=original)
    (VENDOR / "VENDORED.md").write_text(text)


def _digest(name: str) -> str:
    return hashlib.sha256((VENDOR / name).read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
