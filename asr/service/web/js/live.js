// Live transcription: the microphone to /v1/realtime, text while someone speaks.

import { el, button, choice, confirm, field, copy, saveAs, say, toast } from "./dom.js";
import { clock, languageName } from "./format.js";
import { address, getJson, sendJson, explain } from "./api.js";
import { microphone, meter } from "./recorder.js";
import { setting, setSetting } from "./store.js";

const PREFIX = "conversation.item.input_audio_transcription.";

export class LivePage {
	#items = new Map();

	constructor(main) { this.main = main; }

	// The text stays while other views are shown.
	open() {
		if (!this.node) this.#build();
		this.main.replaceChildren(this.node);
		document.title = "Live – Transcripts";
	}

	#build() {
		addEventListener("beforeunload", (event) => { if (this.isRunning || this.isNew) event.preventDefault(); });
		this.lines = el("div", { class: "live-lines", role: "log", "aria-label": "Transcript", "aria-live": "off", tabindex: "0" }, el("p", { class: "empty muted" }, "Press Start and speak. Words appear while you speak; after each pause they get their final form and their times."));
		this.startButton = button("Start", () => this.start(), { icon: "mic", class: "primary big" });
		this.stopButton = button("Stop", () => this.stop(), { icon: "stop", class: "big" });
		this.stopButton.hidden = true;
		this.time = el("span", { class: "now" }, "0:00");
		this.level = el("span");
		this.language = choice([["", "Usual language"]], "");
		this.after = el("div", { class: "buttons" }, button("Copy the text", () => { this.isNew = false; copy(this.#text(), "Text"); }, { icon: "file" }), button("Download text", () => this.#download("txt", this.#text()), { icon: "download" }), button("Download SRT", () => this.#download("srt", this.#srt()), { icon: "download" }));
		this.after.hidden = true;
		this.spoken = el("p", { class: "hidden", "aria-live": "polite" });
		const bar = el("div", { class: "live-bar" }, this.startButton, this.stopButton, this.time, this.level, el("span", { class: "space" }), field("Language", this.language));
		this.node = el("div", { class: "live" }, el("h1", {}, "Live"), bar, this.lines, this.after, this.spoken);
		this.#loadLanguages();
	}

	close() { this.stop(); }

	async #loadLanguages() {
		try {
			const { data: [model] } = await getJson("v1/models");
			const languages = model.capabilities?.languages ?? [];
			if (languages.length < 2) { this.language.parentNode.hidden = true; return; }
			const first = model.capabilities.detects_language ? "Recognise it" : languageName(languages[0]);
			this.language.replaceChildren(el("option", { value: "" }, first), ...languages.map((it) => el("option", { value: it }, languageName(it))));
			this.language.value = setting("live-language", "");
		} catch { this.language.parentNode.hidden = true; }
	}

	async start() {
		if (this.isNew && !(await confirm("Start again?", "The text so far is removed. You have neither copied nor downloaded it.", "Start again"))) return;
		this.startButton.disabled = true;
		try {
			const session = { type: "transcription", audio: { input: { format: { type: "audio/pcm", rate: 24_000 }, turn_detection: { type: "server_vad" }, transcription: this.language.value ? { language: this.language.value } : {} } } };
			setSetting("live-language", this.language.value);
			const secret = await (await sendJson("POST", "v1/realtime/client_secrets", { session })).json();
			this.stream = await microphone();
			await this.#capture();
			if (!this.node.isConnected) return this.stop(); // the view was left meanwhile
			this.#connect(secret.value);
			this.#items.clear();
			this.lines.replaceChildren();
			this.#running(true);
		} catch (error) {
			if (error.status) explain(error, "The session cannot start"); else toast(error.message, { kind: "error" });
			this.stop();
		} finally { this.startButton.disabled = false; }
		return undefined;
	}

	async #capture() {
		this.context = new AudioContext();
		await this.context.audioWorklet.addModule(address("page/js/pcm.js"));
		this.worklet = new AudioWorkletNode(this.context, "pcm", { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" });
		this.worklet.port.onmessage = ({ data }) => this.#send(data);
		this.context.createMediaStreamSource(this.stream).connect(this.worklet);
		this.level.replaceChildren(meter(this.stream));
	}

	#connect(secret) {
		const url = new URL(address("v1/realtime?intent=transcription"));
		url.protocol = url.protocol.replace("http", "ws");
		const socket = new WebSocket(url, ["realtime", `openai-insecure-api-key.${secret}`]);
		this.socket = socket;
		this.early = [];
		socket.onopen = () => { for (const data of this.early) this.#send(data); this.early = []; };
		socket.onmessage = ({ data }) => this.#event(JSON.parse(data));
		socket.onclose = ({ code, reason }) => {
			if (this.socket !== socket) return;
			if (this.isRunning || code !== 1000) toast(reason || "The connection was closed. What was said so far stays.", { kind: code === 1000 ? "info" : "error" });
			this.#ended();
		};
	}

	#send(buffer) {
		if (this.socket?.readyState === WebSocket.CONNECTING) { this.early.push(buffer); return; }
		if (this.socket?.readyState !== WebSocket.OPEN) return;
		if (this.socket.bufferedAmount > 1 << 20) { this.#slow(); return; }
		this.socket.send(JSON.stringify({ type: "input_audio_buffer.append", audio: base64(new Uint8Array(buffer)) }));
		this.seconds = (this.seconds ?? 0) + 0.1;
		this.time.textContent = clock(this.seconds);
	}

	#slow() {
		if (this.warned) return;
		this.warned = true;
		toast("The connection is too slow. Some speech is lost.", { kind: "error" });
	}

	#running(on) {
		this.isRunning = on;
		this.startButton.hidden = on;
		this.stopButton.hidden = !on;
		this.language.disabled = on;
		if (on) { Object.assign(this, { seconds: 0, warned: false, isNew: false }); this.after.hidden = true; this.stopButton.focus(); say("Listening"); }
	}

	// The microphone stops at once; the socket stays until the last turn has its text.
	stop() {
		for (const track of this.stream?.getTracks() ?? []) track.stop();
		this.context?.close();
		this.stream = this.context = null;
		this.level?.replaceChildren();
		if (this.isRunning) {
			this.#running(false);
			this.startButton.focus();
			if (this.socket?.readyState === WebSocket.OPEN) {
				this.socket.send(JSON.stringify({ type: "input_audio_buffer.commit" }));
				this.last = setTimeout(() => this.#finish(), 15_000);
				this.#finishWhenDone();
			} else this.#ended();
		}
	}

	#finishWhenDone() {
		const open = [...this.#items.values()].some((it) => !it.isFinal);
		if (!this.isRunning && this.socket && !open && this.committed) this.#finish();
	}

	#finish() { clearTimeout(this.last); this.socket?.close(1000); this.#ended(); }

	#ended() {
		this.socket = null;
		this.committed = false;
		if (this.isRunning) this.stop();
		for (const item of this.#items.values()) item.node.classList.remove("partial");
		this.after.hidden = this.#items.size === 0;
	}

	#item(id) {
		let item = this.#items.get(id);
		if (!item) {
			item = { text: "", segments: [], node: el("p", { class: "live-line partial", dir: "auto" }, el("span", { class: "time" }), el("span", { class: "text" })) };
			this.#items.set(id, item);
			this.lines.append(item.node);
		}
		return item;
	}

	#event(event) {
		const { type, item_id: id } = event;
		if (type === "input_audio_buffer.speech_started") this.#item(id).start = event.audio_start_ms / 1000;
		else if (type === "input_audio_buffer.committed") { this.committed = true; this.#item(id).start = (event.audio_start_ms ?? 0) / 1000; }
		else if (type === `${PREFIX}delta`) this.#item(id).text += event.delta;
		else if (type === `${PREFIX}segment`) this.#item(id).segments.push(event);
		else if (type === `${PREFIX}completed`) Object.assign(this.#item(id), { text: event.transcript, isFinal: true });
		else if (type === `${PREFIX}failed`) Object.assign(this.#item(id), { text: "(not transcribed)", isFinal: true });
		else if (type === "error") return this.#error(event.error);
		if (id) this.#show(id);
		this.#finishWhenDone();
		return undefined;
	}

	#error(error) {
		if (!this.isRunning && /empty|commit/i.test(`${error.code} ${error.message}`)) { this.committed = true; this.#finishWhenDone(); return; }
		toast(error.message, { kind: "error" });
	}

	#show(id) {
		const item = this.#items.get(id);
		const [time, text] = item.node.children;
		const atEnd = this.lines.scrollHeight - this.lines.scrollTop - this.lines.clientHeight < 80;
		time.textContent = clock(item.start ?? 0);
		text.textContent = item.text.trim() || "…";
		this.isNew ||= item.text.trim() !== ""; // it is only here, until it is copied or downloaded
		item.node.classList.toggle("partial", !item.isFinal);
		if (item.isFinal && item.text.trim() === "") { item.node.remove(); this.#items.delete(id); }
		if (item.isFinal) this.spoken.textContent = item.text;
		if (atEnd) this.lines.scrollTop = this.lines.scrollHeight;
	}

	#text() { return [...this.#items.values()].map((it) => it.text.trim()).filter(Boolean).join("\n"); }

	#srt() {
		const stamp = (seconds) => `${clock(seconds + 36_000 * 10, 3).replace(/^\d+/, (hours) => String(hours - 100).padStart(2, "0"))}`.replace(".", ",");
		const all = [...this.#items.values()].flatMap((it) => it.segments);
		return all.map((it, i) => `${i + 1}\n${stamp(it.start)} --> ${stamp(it.end)}\n${it.text.trim()}\n`).join("\n");
	}

	#download(format, text) { this.isNew = false; saveAs(new Blob([text], { type: "text/plain;charset=utf-8" }), `live.${format}`); }
}

function base64(data) {
	let text = "";
	for (let i = 0; i < data.length; i += 8192) text += String.fromCharCode(...data.subarray(i, i + 8192));
	return btoa(text);
}
