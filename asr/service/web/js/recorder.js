// Records the microphone into a file, which is then uploaded like any other.

import { el, button, toast } from "./dom.js";
import { clock } from "./format.js";

export async function microphone(constraints = {}) {
	if (!navigator.mediaDevices) throw new Error("The browser gives the microphone only to pages with TLS (https) and to localhost.");
	try {
		return await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1, echoCancellation: false, autoGainControl: true, ...constraints } });
	} catch (error) {
		if (error.name === "NotAllowedError") throw new Error("The microphone is blocked. Allow it in the settings of the browser for this page.");
		if (error.name === "NotFoundError") throw new Error("There is no microphone.");
		throw error;
	}
}

// A level meter, drawn from a stream.
export function meter(stream, context = new AudioContext()) {
	const analyser = new AnalyserNode(context, { fftSize: 1024 });
	context.createMediaStreamSource(stream).connect(analyser);
	const data = new Float32Array(analyser.fftSize);
	const node = el("meter", { min: 0, max: 1, low: 0.05, "aria-label": "Level of the microphone" });
	const draw = () => {
		analyser.getFloatTimeDomainData(data);
		const rms = Math.sqrt(data.reduce((sum, it) => sum + it * it, 0) / data.length);
		node.value = Math.max(0, Math.min(1, (20 * Math.log10(rms + 1e-6) + 60) / 60));
		if (stream.active) requestAnimationFrame(draw); else context.close();
	};
	draw();
	return node;
}

export class Recorder {
	constructor(onfile) {
		this.onfile = onfile;
		this.node = el("div", { class: "recorder", hidden: true });
	}

	async start() {
		if (this.isBusy) return;
		this.isBusy = true;
		try { this.stream = await microphone(); } catch (error) { toast(error.message, { kind: "error" }); }
		if (!this.stream || !this.node.isConnected) { this.#release(); return; } // the view was left meanwhile
		this.recorder = new MediaRecorder(this.stream, { audioBitsPerSecond: 64_000 });
		const pieces = [];
		this.recorder.ondataavailable = ({ data }) => pieces.push(data);
		this.recorder.onstop = () => this.#done(pieces);
		this.recorder.start(1000);
		Object.assign(this, { seconds: 0, kept: true });
		this.#show();
		this.timer = setInterval(() => { if (this.recorder.state === "recording") { this.seconds += 1; this.time.textContent = clock(this.seconds); } }, 1000);
		addEventListener("beforeunload", this.guard);
	}

	guard = (event) => event.preventDefault();

	#show() {
		this.time = el("span", { class: "now" }, "0:00");
		this.pauseButton = button("Pause", () => this.#pause(), { icon: "pause" });
		const stop = button("Stop and transcribe", () => this.stop(true), { icon: "check", class: "primary" });
		this.node.replaceChildren(el("span", { class: "live-dot", "aria-hidden": "true" }), el("span", {}, "Recording"), this.time, meter(this.stream), el("span", { class: "space" }), this.pauseButton, button("Discard", () => this.stop(false), { class: "quiet" }), stop);
		this.node.hidden = false;
		stop.focus();
	}

	#pause() {
		const paused = this.recorder.state === "paused";
		if (paused) this.recorder.resume(); else this.recorder.pause();
		this.node.classList.toggle("paused", !paused);
		this.pauseButton.lastChild.textContent = paused ? "Pause" : "Continue";
	}

	stop(keep) {
		this.kept = keep;
		this.recorder.stop();
		this.#release();
	}

	#release() {
		for (const track of this.stream?.getTracks() ?? []) track.stop();
		this.stream = null;
		this.isBusy = false;
	}

	#done(pieces) {
		clearInterval(this.timer);
		removeEventListener("beforeunload", this.guard);
		this.#release();
		this.node.hidden = true;
		if (!this.kept) return;
		const type = this.recorder.mimeType.split(";")[0] || "audio/webm";
		const ending = { "audio/webm": "webm", "audio/ogg": "ogg", "audio/mp4": "m4a" }[type] ?? "webm";
		const stamp = new Date(Date.now() - new Date().getTimezoneOffset() * 60_000).toISOString().slice(0, 16).replace("T", " ").replace(":", ".");
		this.onfile(new File(pieces, `Recording ${stamp}.${ending}`, { type, lastModified: Date.now() }));
	}
}
