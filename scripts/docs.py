"""Write the generated parts of docs/: the table of settings and the JSON Schema of transcripts."""

from __future__ import annotations

import json
import re
from pathlib import Path

from asr.cli.settings import settings_table
from asr.service.transcriptions.bodies import TranscriptBody

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"(<!-- settings -->\n).*?(<!-- /settings -->)", re.DOTALL)


def main() -> None:
    """Rewrite the files in place."""
    page = ROOT / "docs" / "settings.md"
    text = page.read_text(encoding="utf-8")
    page.write_text(BLOCK.sub(rf"\g<1>{settings_table()}\n\g<2>", text), encoding="utf-8")
    schema = json.dumps(TranscriptBody.model_json_schema(), indent=2)
    (ROOT / "docs" / "transcript.schema.json").write_text(schema + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
