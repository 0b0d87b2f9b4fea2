// Saves edits by themselves, and asks what to do if somebody else has saved first.

import { el, ask, toast } from "./dom.js";
import { request, jobPath, explain } from "./api.js";
import { pause } from "./sse.js";
import { clock } from "./format.js";
import { normalised } from "./model.js";

const texts = new WeakMap();
const WORD = ["word", "start", "end", "confidence", "timing", "doubtful"];
const SEGMENT = ["start", "end", "text", "speaker", "channel", "words", "line", "doubts"];
const pick = (from, names) => Object.fromEntries(names.filter((name) => from[name] !== undefined).map((name) => [name, from[name]]));

// JSON of a segment. It is kept, so that saving 90,000 words does not encode all of them again.
function encoded(segment) {
	let text = texts.get(segment);
	if (!text) texts.set(segment, (text = JSON.stringify({ ...pick(segment, SEGMENT), words: segment.words.map((it) => pick(it, WORD)) })));
	return text;
}

// Jobs that were left unsaved: id -> promise.
export const pending = new Map();

export class Saver extends EventTarget {
	state = "saved";
	#timer = 0;
	#version = 0;
	#running = null;

	constructor(job, transcript) {
		super();
		Object.assign(this, { job, transcript, path: jobPath(job.id, "/transcript") });
		transcript.addEventListener("change", ({ detail }) => { if (detail.edited) this.#changed(detail); });
		this.guard = (event) => { if (this.isDirty) { event.preventDefault(); this.now(); } };
		addEventListener("beforeunload", this.guard);
	}

	get isDirty() { return this.state !== "saved"; }

	// Waits a moment for the last changes. Without a connection, and times that are still being
	// `aligned`, are saved later.
	async close(aligned) {
		const { id } = this.job;
		this.isClosing = true;
		const saved = this.#saveOrAsk();
		pending.set(id, saved.then(() => aligned).then(() => this.now()).finally(() => { removeEventListener("beforeunload", this.guard); pending.delete(id); }));
		await Promise.race([saved, pause(3000)]);
		if (this.state === "offline") toast("Changes are saved when the connection is back. Keep this tab open.");
	}

	async #saveOrAsk() {
		const actions = [{ label: "Lose the changes", value: true }, { label: "Try again", value: null, kind: "primary" }];
		while (!(await this.now())) {
			if (this.state === "conflict") this.#set("unsaved"); // asks again
			else if (await ask({ title: "The changes are not saved", body: [el("p", { dir: "auto" }, this.reason)], actions })) this.#set("saved");
		}
	}

	#set(state) {
		this.state = state;
		this.dispatchEvent(new Event("state"));
	}

	#changed({ refined }) {
		this.#version += 1;
		if (this.state === "conflict") return;
		if (this.state !== "saving") this.#set("unsaved");
		if (refined && this.#timer) return; // many lines are aligned one after the other
		clearTimeout(this.#timer);
		this.#timer = setTimeout(() => this.now(), this.transcript.segments.length > 2000 ? 2500 : 1000);
	}

	// Saves until nothing is left to save. Resolves with true if all is saved.
	now() {
		clearTimeout(this.#timer);
		this.#timer = 0;
		this.#running ??= this.#save().finally(() => { this.#running = null; });
		return this.#running;
	}

	async #save() {
		for (let wait = 1000; this.isDirty && this.state !== "conflict"; wait = Math.min(wait * 2, 30_000)) {
			const version = this.#version;
			this.#set("saving");
			try {
				await this.#put();
				wait = 1000;
				this.#set(this.#version === version ? "saved" : "unsaved");
			} catch (error) {
				if (error.status === 412) {
					this.#set("conflict");
					await this.#conflict(error.etag).catch((problem) => explain(problem, "The other version cannot be read"));
					continue;
				}
				if (error.status && error.status < 500 && error.status !== 429) return this.#failed(error);
				this.#set("offline");
				await pause(wait);
			}
		}
		return !this.isDirty;
	}

	#failed(error) {
		this.reason = `The changes could not be saved: ${error.message}`;
		this.#set("failed");
		toast(this.reason, { kind: "error" });
		return false;
	}

	async #put() {
		const { segments, speakers, etag } = this.transcript;
		const text = `{"speakers":${JSON.stringify(speakers)},"segments":[${segments.map(encoded).join(",")}]}`;
		const headers = { "Content-Type": "application/json", "If-Match": etag ?? "*" };
		let body = text;
		if (text.length > 20_000 && globalThis.CompressionStream) {
			body = await new Response(new Blob([text]).stream().pipeThrough(new CompressionStream("gzip"))).blob();
			headers["Content-Encoding"] = "gzip";
		}
		const response = await request(this.path, { method: "PUT", body, headers });
		this.transcript.etag = response.headers.get("etag") ?? etag;
		this.transcript.isEdited = true;
	}

	async #conflict(current) {
		const response = await request(this.path);
		const theirs = await response.json();
		const etag = response.headers.get("etag") ?? current;
		const choice = await ask({
			title: "Somebody else has saved this transcript",
			wide: true,
			body: [el("p", {}, "It was changed in another tab or by another person since you opened it. Which version shall stay? You can undo the choice."), differences(this.transcript.segments, theirs.segments.map(normalised))],
			actions: [...(this.isClosing ? [] : [{ label: "Decide later", value: null }]), { label: "Use theirs", value: "theirs" }, { label: "Keep mine", value: "mine", kind: "primary" }],
		});
		if (choice === "theirs") return this.#take(theirs, etag, "Use the other version");
		if (choice === null) return;
		this.transcript.etag = etag;
		this.#set("unsaved");
	}

	// Shows a version that the server has. Undo brings back what was shown before.
	#take({ segments, speakers, edited }, etag, label) {
		const { transcript } = this;
		transcript.replace(0, transcript.segments.length, segments.map(normalised), label, { ...speakers });
		Object.assign(transcript, { etag, isEdited: edited });
		clearTimeout(this.#timer);
		this.#timer = 0;
		this.#set("saved");
	}

	// Shows what another tab has saved meanwhile, unless something here is unsaved or open.
	async refresh() {
		const { etag } = this.transcript;
		const isBusy = () => this.isDirty || etag !== this.transcript.etag || document.querySelector("textarea.text, dialog");
		if (!etag || isBusy()) return;
		try {
			const response = await request(this.path, { headers: { "If-None-Match": `${etag}, ${etag.slice(0, -1)}-gzip"` }, quiet: true });
			const body = await response.json();
			if (isBusy()) return;
			this.#take(body, response.headers.get("etag"), "Use the other version");
			toast("This transcript was changed elsewhere. You see the new version.");
		} catch { /* 304: it is the same. Without a connection, the next save finds out. */ }
	}

	resolve() { if (this.state === "conflict") { this.#set("unsaved"); this.now(); } }

	// Forgets all edits: the server has the engine's transcript again.
	async restore() {
		await this.now();
		await request(this.path, { method: "DELETE", headers: { "If-Match": this.transcript.etag ?? "*" } });
		const response = await request(this.path);
		this.#take(await response.json(), response.headers.get("etag"), "Restore the original");
	}
}

function differences(mine, theirs) {
	const of = (segments) => new Map(segments.map((it) => [`${it.start.toFixed(2)} ${it.text}`, it]));
	const [a, b] = [of(mine), of(theirs)];
	const only = (from, others) => [...from].filter(([id]) => !others.has(id)).map(([, it]) => it);
	const [left, right] = [only(a, b), only(b, a)];
	const column = (title, list) => el("div", { class: "version" }, el("h3", {}, title), list.length ? list.slice(0, 6).map((it) => el("p", { dir: "auto" }, el("small", {}, clock(it.start)), " ", it.text)) : el("p", { class: "muted" }, "No line differs, only times or names."), list.length > 6 && el("p", { class: "muted" }, `and ${list.length - 6} more lines`));
	return el("div", { class: "versions" }, column("Yours", left), column("Theirs", right));
}
