// Recordings on their way to the server: resumable uploads (tus), then a job for each.

import * as tus from "../vendor/tus.js";
import { el, button, toast } from "./dom.js";
import { bytes } from "./format.js";
import { address, authorization, askForKey, request, explain, jobPath } from "./api.js";
import { options, changedRules } from "./store.js";

const AT_ONCE = 2;
const DELAYS = [0, 1000, 2000, 4000, 8000, 15_000, 30_000, 30_000, 30_000, 30_000];

export class Uploads {
	#waiting = [];
	#running = new Set();

	constructor(oncreated) {
		this.oncreated = oncreated;
		this.list = el("ul", { class: "uploads", "aria-label": "Uploads" });
		this.node = this.list;
		this.#showBroken();
		addEventListener("beforeunload", (event) => { if (this.#running.size || this.#waiting.length) event.preventDefault(); });
	}

	add(files) {
		for (const file of files) {
			if (!file.size) { toast(`“${file.name}” is empty.`, { kind: "error" }); continue; }
			const item = new Item(this, file);
			this.list.append(item.node);
			this.queue(item);
		}
	}

	queue(item) {
		this.#waiting.push(item);
		this.#next();
	}

	#next() {
		while (this.#running.size < AT_ONCE && this.#waiting.length) {
			const item = this.#waiting.shift();
			this.#running.add(item);
			item.run();
		}
	}

	ended(item) {
		this.#running.delete(item);
		this.#waiting = this.#waiting.filter((it) => it !== item);
		this.#next();
	}

	// Uploads that an earlier visit left unfinished: the browser does not keep the files.
	#showBroken() {
		let names = [];
		try { names = Object.keys(localStorage).filter((it) => it.startsWith("tus::")); } catch { /* no storage */ }
		for (const name of names) {
			let found = {};
			try { found = JSON.parse(localStorage.getItem(name)); } catch { /* not ours */ }
			const file = found.metadata?.filename;
			if (!file) continue;
			const forget = async () => {
				node.remove();
				localStorage.removeItem(name);
				if (found.uploadUrl) await fetch(found.uploadUrl, { method: "DELETE", headers: { "Tus-Resumable": "1.0.0", ...authorization() } }).catch(() => {});
			};
			const node = el("li", { class: "broken" }, el("div", { class: "body" }, el("bdi", { class: "name" }, file), el("small", { class: "muted" }, "This upload was interrupted. Choose the same file again, and it continues where it stopped.")), button(`Forget ${file}`, forget, { icon: "close", bare: true, title: "Forget it" }));
			node.dataset.file = `${file} ${found.size}`;
			this.list.append(node);
		}
	}

	continues(file) { this.list.querySelector(`[data-file="${CSS.escape(`${file.name} ${file.size}`)}"]`)?.remove(); }
}

class Item {
	constructor(uploads, file) {
		Object.assign(this, { uploads, file, state: "waiting" });
		this.bar = el("progress", { max: file.size, value: 0, "aria-label": `Upload of ${file.name}` });
		this.text = el("small", { class: "muted" }, "Waiting");
		this.pauseButton = button(`Pause ${file.name}`, () => this.#toggle(), { icon: "pause", bare: true, title: "Pause" });
		this.cancelButton = button(`Stop ${file.name}`, () => this.cancel(), { icon: "close", bare: true, title: "Stop and remove" });
		this.retryButton = button("Try again", () => this.#retry(), { class: "quiet" });
		this.retryButton.hidden = true;
		this.node = el("li", {}, el("div", { class: "body" }, el("bdi", { class: "name" }, file.name), this.bar, this.text), this.retryButton, this.pauseButton, this.cancelButton);
	}

	#say(text) { this.text.textContent = text; }

	async run() {
		this.state = "running";
		this.uploads.continues(this.file);
		this.upload ??= new tus.Upload(this.file, {
			endpoint: address("v1/uploads"),
			metadata: { filename: this.file.name, ...(this.file.type && { filetype: this.file.type }) },
			chunkSize: 64 << 20,
			retryDelays: DELAYS,
			removeFingerprintOnSuccess: true,
			onBeforeRequest: (sent) => { for (const [name, value] of Object.entries(authorization())) sent.setHeader(name, value); },
			onShouldRetry: (error) => { const status = error.originalResponse?.getStatus() ?? 0; if (!status) this.#say("The connection is lost. The upload continues when it is back."); return !status || status >= 500 || [408, 409, 423, 429, 460].includes(status); },
			onProgress: (sent, total) => this.#progress(sent, total),
			onSuccess: () => this.#createJob(),
			onError: (error) => this.#failed(error),
		});
		this.began = { at: performance.now(), sent: null };
		const [earlier] = await this.upload.findPreviousUploads();
		if (this.state !== "running") return;
		if (earlier) this.upload.resumeFromPreviousUpload(earlier);
		this.upload.start();
	}

	#progress(sent, total) {
		this.bar.value = sent;
		this.began.sent ??= sent;
		const seconds = (performance.now() - this.began.at) / 1000;
		const rate = (sent - this.began.sent) / Math.max(seconds, 0.5);
		const left = rate > 0 && seconds > 2 ? Math.ceil((total - sent) / rate) : null;
		const rest = left === null ? "" : left < 90 ? `, ${left} s left` : `, ${Math.round(left / 60)} min left`;
		this.#say(`${bytes(sent)} of ${bytes(total)}${rest}`);
	}

	#toggle() {
		if (this.state === "paused") { this.#show("pause", "Pause"); this.#again(); return; }
		this.state = "paused";
		this.upload?.abort();
		this.uploads.ended(this); // its place is free for another upload
		this.#say("Paused");
		this.#show("play", "Continue");
	}

	#again() {
		this.state = "waiting";
		this.#say("Waiting");
		this.uploads.queue(this);
	}

	#show(name, label) {
		this.pauseButton.replaceWith((this.pauseButton = button(`${label} ${this.file.name}`, () => this.#toggle(), { icon: name, bare: true, title: label })));
	}

	async #failed(error) {
		const response = error.originalResponse;
		if (response?.getStatus() === 401 && (await askForKey(authorization().Authorization && "The service refused the key."))) { this.run(); return; }
		let message = response ? "" : "The service cannot be reached.";
		try { message ||= JSON.parse(response.getBody()).error.message; } catch { message ||= error.message; }
		this.#stuck(message);
	}

	#stuck(message) {
		this.state = "failed";
		this.#say(message);
		this.node.classList.add("failed");
		this.retryButton.hidden = false;
		this.pauseButton.hidden = true;
		toast(`“${this.file.name}”: ${message}`, { kind: "error" });
		this.uploads.ended(this);
	}

	#retry() {
		this.node.classList.remove("failed");
		this.retryButton.hidden = true;
		this.pauseButton.hidden = false;
		if (this.uploaded) this.#createJob(); else this.#again();
	}

	async #createJob() {
		this.uploaded = true;
		this.bar.value = this.file.size;
		this.pauseButton.hidden = true;
		this.#say("Uploaded. Starting the transcription…");
		const id = new URL(this.upload.url).pathname.split("/").pop();
		try {
			const headers = { "Idempotency-Key": `page-${id}` };
			const response = await request("v1/jobs", { method: "POST", body: jobForm(id), headers });
			const job = await response.json();
			this.node.remove();
			this.uploads.ended(this);
			request(`v1/uploads/${id}`, { method: "DELETE", headers: { "Tus-Resumable": "1.0.0" } }).catch(() => {});
			this.uploads.oncreated(job);
			request(jobPath(job.id, "/peaks?points_per_second=1"), { quiet: true }).catch(() => {}); // prepares the recording
		} catch (error) { this.#stuck(error.message); }
	}

	async cancel() {
		this.state = "cancelled";
		this.uploads.ended(this);
		this.node.remove();
		try { await this.upload?.abort(true); } catch (error) { explain(error, "The upload could not be removed"); }
	}
}

function jobForm(id) {
	const chosen = options();
	const form = new FormData();
	form.set("upload_id", id);
	form.set("keep_recording", "true");
	if (chosen.language) form.set("language", chosen.language);
	if (chosen.channels !== "mix") form.set("channels", chosen.channels);
	if (chosen.speakers) form.set("speakers", chosen.speakers);
	if (chosen.prompt.trim()) form.set("prompt", chosen.prompt.trim());
	for (const word of chosen.vocabulary.split(/[\n,;]/).map((it) => it.trim()).filter(Boolean).slice(0, 100)) form.append("keywords[]", word);
	for (const [name, value] of changedRules()) form.set(name, value);
	return form;
}
