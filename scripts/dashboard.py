"""Write deploy/grafana-dashboard.json: one panel for each question of an operator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TARGET = Path(__file__).resolve().parent.parent / "deploy" / "grafana-dashboard.json"
SOURCE = {"type": "prometheus", "uid": "${source}"}
WIDTH, HEIGHT, COLUMNS = 8, 8, 3


def rate(metric: str, by: str) -> str:
    """Events per second, by label."""
    return f"sum by ({by}) (rate({metric}[$__rate_interval]))"


def quantile(metric: str, share: float) -> str:
    """A quantile of a histogram over all servers."""
    inner = f"sum by (le) (rate({metric}_bucket[$__rate_interval]))"
    return f"histogram_quantile({share}, {inner})"


SPEED = "sum(rate(asr_engine_audio_seconds_total[$__rate_interval]))"
PANELS: list[tuple[str, str, list[tuple[str, str]]]] = [
    ("Requests", "reqps", [(rate("asr_http_requests_total", "route"), "{{route}}")]),
    ("Answers by status", "reqps", [(rate("asr_http_requests_total", "status"), "{{status}}")]),
    (
        "Seconds for a request",
        "s",
        [
            (quantile("asr_http_request_seconds", 0.5), "p50"),
            (quantile("asr_http_request_seconds", 0.99), "p99"),
        ],
    ),
    (
        "In work and in wait",
        "short",
        [
            ("sum by (state) (asr_requests)", "{{state}}"),
            ("sum(asr_http_requests_in_flight)", "open connections"),
            ("sum(asr_live_sessions)", "live sessions"),
        ],
    ),
    ("Jobs", "short", [("sum by (state) (asr_jobs)", "{{state}}")]),
    ("Uploads", "short", [("sum by (state) (asr_uploads)", "{{state}}")]),
    (
        "Slots of the engine",
        "short",
        [
            ("sum(asr_engine_slots)", "wanted"),
            ("sum(asr_engine_slots_in_use)", "in use"),
            ("sum(asr_engine_chunks_waiting)", "chunks waiting"),
        ],
    ),
    (
        "Seconds for a chunk",
        "s",
        [
            (quantile("asr_engine_chunk_seconds", 0.5), "p50"),
            (quantile("asr_engine_chunk_seconds", 0.99), "p99"),
        ],
    ),
    (
        "Partial results of live sessions",
        "short",
        [
            (rate("asr_interim_requests_total", "outcome"), "requests/s: {{outcome}}"),
            ("sum(rate(asr_interim_audio_seconds_total[$__rate_interval]))", "audio s/s"),
            (quantile("asr_interim_seconds", 0.5), "engine seconds, p50"),
        ],
    ),
    (
        "RTFx: audio seconds in a second",
        "short",
        [
            (SPEED, "engine"),
            (quantile("asr_transcription_rtfx", 0.5), "recording, median"),
        ],
    ),
    (
        "Errors",
        "cps",
        [
            (rate("asr_engine_errors_total", "error"), "engine: {{error}}"),
            (rate("asr_transcriptions_total", "outcome"), "recordings: {{outcome}}"),
            ("sum(1 - asr_worker_up)", "workers down"),
        ],
    ),
    (
        "Guards and further attempts",
        "cps",
        [
            (rate("asr_guard_findings_total", "guard"), "{{guard}}"),
            (rate("asr_recognition_events_total", "event"), "{{event}}"),
        ],
    ),
    (
        "By key",
        "short",
        [
            (rate("asr_audio_seconds_total", "key"), "{{key}}: audio s/s"),
            (rate("asr_received_bytes_total", "route"), "{{route}}: bytes/s"),
        ],
    ),
]


def panel(number: int, title: str, unit: str, targets: list[tuple[str, str]]) -> dict[str, Any]:
    """One graph."""
    row, column = divmod(number, COLUMNS)
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": title,
        "datasource": SOURCE,
        "gridPos": {"x": column * WIDTH, "y": row * HEIGHT, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}},
        "targets": [
            {"refId": chr(ord("A") + n), "datasource": SOURCE, "expr": expr, "legendFormat": name}
            for n, (expr, name) in enumerate(targets)
        ],
    }


def dashboard() -> dict[str, Any]:
    """The whole dashboard, as Grafana imports it."""
    source = {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    return {
        "uid": "asr-service",
        "title": "asr-service",
        "tags": ["asr"],
        "schemaVersion": 39,
        "timezone": "browser",
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": [source]},
        "panels": [panel(number, *spec) for number, spec in enumerate(PANELS)],
    }


if __name__ == "__main__":
    TARGET.write_text(json.dumps(dashboard(), indent=2) + "\n", encoding="utf-8")
