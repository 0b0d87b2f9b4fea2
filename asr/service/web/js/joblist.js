// The list of jobs: search, states, progress, and what can be done with each.

import { el, button, confirm, choice, icon, say, toast } from "./dom.js";
import { clock, moment, languageName, bytes } from "./format.js";
import { getJson, request, jobPath, explain } from "./api.js";

const STATES = { queued: "Waiting", running: "Transcribing", succeeded: "Ready", failed: "Failed", cancelled: "Cancelled" };
export const stateChip = (job) => el("span", { class: `chip state-${job.state}` }, STATES[job.state] ?? job.state);

export function progressOf(job) {
	const { transcribed, total } = job.progress;
	const part = total ? Math.min(1, transcribed / total) : 0;
	const text = job.state === "queued" ? "Waiting for its turn" : `${clock(transcribed)}${total ? ` of ${clock(total)}` : ""}${job.rtfx ? `, ${job.rtfx.toFixed(1)}× real time` : ""}`;
	const bar = el("progress", { max: 1, "aria-label": "Progress", "aria-valuetext": text });
	if (job.state !== "queued" && total) bar.value = part;
	return el("div", { class: "progress" }, bar, el("small", {}, text));
}

export async function cancelJob(job, done) {
	if (!(await confirm("Cancel this job?", `“${job.name ?? "The recording"}” is not transcribed further. What is ready stays.`, "Cancel the job"))) return;
	try { await request(jobPath(job.id, "/cancel"), { method: "POST" }); done?.(); } catch (error) { explain(error, "The job could not be cancelled"); }
}

export async function deleteJob(job, done) {
	const name = job.name ?? "This recording";
	const text = `“${name}”, its transcript and all corrections are deleted from the server. This cannot be undone.`;
	if (!(await confirm("Delete this recording?", text, "Delete"))) return;
	try {
		await request(jobPath(job.id), { method: "DELETE" });
		toast("Deleted");
		done();
	} catch (error) { explain(error, "It could not be deleted"); }
}

export class JobList {
	#jobs = [];
	#timer = 0;
	#more = false;

	constructor(signal) {
		this.signal = signal;
		this.search = el("input", { type: "search", placeholder: "Search by name", "aria-label": "Search recordings by name", dir: "auto" });
		this.state = choice([["", "All states"], ...Object.entries(STATES)], "", { "aria-label": "State" });
		this.list = el("ul", { class: "jobs" });
		this.note = el("p", { class: "empty muted", hidden: true });
		this.moreButton = button("Show more", () => this.load({ more: true }), { class: "quiet center" });
		this.moreButton.hidden = true;
		this.node = el("section", { class: "recordings", "aria-labelledby": "recordings" }, el("div", { class: "section-head" }, el("h2", { id: "recordings" }, "Recordings"), el("div", { class: "filters" }, this.search, this.state)), this.list, this.note, this.moreButton);
		this.search.addEventListener("input", () => { clearTimeout(this.typing); this.typing = setTimeout(() => this.load(), 250); });
		this.state.addEventListener("change", () => this.load());
		document.addEventListener("visibilitychange", () => { if (!document.hidden) this.load({ quiet: true }); }, { signal });
		addEventListener("asr-key", () => this.load(), { signal });
		addEventListener("online", () => this.load({ quiet: true }), { signal });
		signal.addEventListener("abort", () => clearTimeout(this.#timer));
	}

	async load({ more = false, quiet = false } = {}) {
		clearTimeout(this.#timer);
		this.turn = (this.turn ?? 0) + 1;
		const { turn } = this;
		const limit = quiet ? Math.min(100, Math.max(30, this.#jobs.length)) : 30;
		const query = new URLSearchParams({ limit });
		if (this.search.value.trim()) query.set("name", this.search.value.trim());
		if (this.state.value) query.set("state", this.state.value);
		if (more && this.#jobs.length) query.set("after", this.#jobs.at(-1).id);
		try {
			const page = await getJson(`v1/jobs?${query}`, { signal: this.signal, quiet });
			if (turn !== this.turn) return;
			this.#jobs = more ? [...this.#jobs, ...page.data] : quiet ? [...page.data, ...this.#jobs.slice(limit)] : page.data;
			this.#more = page.has_more && !(quiet && this.#jobs.length > limit);
			this.#show();
		} catch (error) {
			if (!quiet) explain(error, "The recordings cannot be listed");
		}
		this.#again();
	}

	#again() {
		if (this.signal.aborted) return;
		const busy = this.#jobs.some((job) => job.state === "queued" || job.state === "running");
		if (!document.hidden) this.#timer = setTimeout(() => this.load({ quiet: true }), busy ? 1500 : 20_000);
	}

	#show() {
		const old = new Map([...this.list.children].map((node) => [node.dataset.id, node]));
		const nodes = this.#jobs.map((job) => {
			const sign = JSON.stringify([job.state, job.progress, job.rtfx, job.name]);
			const before = old.get(job.id);
			if (before?.dataset.sign === sign) return before;
			if (before && before.dataset.state !== job.state) say(`${job.name ?? "Recording"}: ${STATES[job.state]}`);
			return this.#row(job, sign);
		});
		const focus = document.activeElement?.closest?.(".jobs > li")?.dataset.id;
		const role = document.activeElement?.dataset?.role;
		if (nodes.length !== this.list.children.length || nodes.some((node, i) => node !== this.list.children[i])) this.list.replaceChildren(...nodes);
		if (focus && !this.list.contains(document.activeElement)) this.list.querySelector(`[data-id="${focus}"] [data-role="${role}"]`)?.focus();
		this.note.hidden = nodes.length > 0;
		this.note.textContent = this.search.value || this.state.value ? "No recording matches." : "Your recordings will appear here. They stay on the server, so you may close this page while they are transcribed.";
		this.moreButton.hidden = !this.#more;
	}

	#row(job, sign) {
		const isBusy = job.state === "queued" || job.state === "running";
		const length = job.progress.total ?? job.recording?.seconds;
		const facts = [length && clock(length), job.language && languageName(job.language), bytes(job.n_bytes), moment(job.created_at)].filter(Boolean).join(" · ");
		const open = el("a", { href: `#job=${job.id}`, class: "open", data: { role: "open" } }, el("bdi", {}, job.name ?? "Recording"));
		const cancel = isBusy && button(`Cancel ${job.name ?? "recording"}`, () => cancelJob(job, () => this.load()), { icon: "stop", bare: true, title: "Cancel", data: { role: "cancel" } });
		const remove = button(`Delete ${job.name ?? "recording"}`, () => deleteJob(job, () => this.load()), { icon: "trash", bare: true, title: "Delete", data: { role: "delete" } });
		const body = el("div", { class: "body" }, open, el("small", { class: "muted" }, facts), isBusy && progressOf(job), job.error && job.state === "failed" && el("small", { class: "error", dir: "auto" }, job.error.message));
		return el("li", { data: { id: job.id, sign, state: job.state } }, el("span", { class: "sign" }, icon("file")), body, stateChip(job), el("span", { class: "acts" }, cancel, remove));
	}
}
