"""Real vLLM servers on this machine's CPU, around the tiny checkpoint."""

import contextlib
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import httpx

from asr.engines.omni.watchdog import descendants
from tests.support.paths import ROOT
from tests.support.serving import clean_env, free_port, wait_for

PYTHON = Path(os.environ.get("VLLM_TEST_PYTHON", ROOT / ".venv-vllm" / "bin" / "python"))
MODEL = "nemotron"
MAX_LENGTH = 8192
BATCH = 32
START_SECONDS = 240
ENVIRONMENT = {
    "PYTHONPATH": str(ROOT / "tests" / "vllm" / "shim"),
    "TORCH_COMPILE_DISABLE": "1",  # saves 25 s in each start
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
ENGINE_ARGUMENTS = {
    "dtype": "bfloat16",
    "max_model_len": MAX_LENGTH,
    "max_num_seqs": BATCH,
    "enforce_eager": True,
}
# Prefix caching crashes vLLM's CPU version of Mamba. vLLM's audio decoder torchcodec is not
# installed here.
FLAGS = (
    *("--host", "127.0.0.1", "--served-model-name", MODEL, "--trust-remote-code"),
    *("--dtype", "bfloat16", "--max-model-len", str(MAX_LENGTH), "--max-num-seqs", str(BATCH)),
    *("--enforce-eager", "--no-enable-prefix-caching"),
    *("--limit-mm-per-prompt", '{"audio":1,"image":0,"video":0}'),
    *("--media-io-kwargs", '{"audio":{"audio_backend":"soundfile"}}'),
    "--enable-log-requests",  # the log then names the aborted requests
)


class Vllm:
    """One server that can be killed and restarted on the same port."""

    def __init__(self, checkpoint, folder, flags=(), **env):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_path = folder / f"vllm-{self.port}.log"
        self._command = [
            str(PYTHON),
            *("-m", "vllm.entrypoints.openai.api_server"),
            *("--model", str(checkpoint), "--port", str(self.port), *FLAGS, *flags),
        ]
        self._env = env
        self._process = None

    def start(self):
        """Start the server; `wait` returns when it is up."""
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=clean_env(ENVIRONMENT | self._env),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self):
        def is_settled():
            time.sleep(0.5)  # each check takes CPU time from the starting server
            return self._process.poll() is not None or self.is_healthy()

        wait_for(is_settled, START_SECONDS, "a healthy vLLM server")
        assert self._process.poll() is None, self.log_path.read_text()[-5000:]

    def is_healthy(self):
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(self.url + "/health", timeout=5).status_code == 200
        return False

    def core(self):
        """The process that runs the model's scheduler."""
        return engine_core(self._process.pid)

    @contextlib.contextmanager
    def frozen(self):
        """Accept requests without processing them, as if each took very long."""
        core = self.core()
        os.kill(core, signal.SIGSTOP)
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(core, signal.SIGCONT)

    def ask_to_end(self):
        """Send SIGTERM, as an orchestrator does; `kill` ends the remaining processes."""
        self._process.terminate()

    def kill(self):
        """Kill all its processes at once, without a clean shutdown."""
        if self._process is None or self._process.poll() is not None:
            return
        family = descendants(self._process.pid)
        self._process.kill()
        for it in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(it.pid, signal.SIGKILL)
        self._process.wait()

    def chat(self, body):
        url, headers = self.url + "/v1/chat/completions", {"content-type": "application/json"}
        return httpx.post(url, content=body, headers=headers, timeout=120)

    def metric(self, name, **labels):
        """The sum of a metric over its other labels."""
        text = httpx.get(self.url + "/metrics", timeout=60).text
        lines = re.findall(rf"^{re.escape(name)}(\{{.*\}})? (\S+)$", text, re.MULTILINE)
        assert lines, f"no metric {name}"
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        return sum(float(value) for given, value in lines if all(it in given for it in wanted))

    def running(self):
        """How many requests are in the batch.

        The engine core is stopped meanwhile. A model this small writes faster than vLLM's API
        process reads, and every other request would wait until it is done.
        """
        with self.frozen():
            return self.metric("vllm:num_requests_running")

    def added(self):
        """The number of requests given to the engine core, from vLLM's log."""
        return self._n_logged(r"Added request \S+")

    def aborted(self):
        """The number of aborted requests, from vLLM's log."""
        return self._n_logged(r"Request \S+ aborted")

    def _n_logged(self, pattern):
        return len(re.findall(pattern, self.log_path.read_text()))

    def finished(self):
        """The number of requests that finished normally."""
        name = "vllm:request_success_total"
        return sum(self.metric(name, finished_reason=reason) for reason in ("stop", "length"))


def engine_core(pid):
    """The descendant process whose name is that of vLLM's engine."""
    for process in descendants(pid):
        with contextlib.suppress(OSError):
            if b"EngineCore" in Path(f"/proc/{process.pid}/cmdline").read_bytes():
                return process.pid
    return None
