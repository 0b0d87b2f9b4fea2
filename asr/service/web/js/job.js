// The page of one job: its state, its transcript, the player and all tools around them.

import { el, button, menuButton, openMenu, confirm, ask, field, icon, toast, say, place } from "./dom.js";
import { clock, parseClock, languageName, moment } from "./format.js";
import { getJson, request, jobPath, explain } from "./api.js";
import { Transcript, wordIndexAt } from "./model.js";
import { toCues, toSentences, parseSrt, spanText } from "./rules.js";
import { Player } from "./player.js";
import { Reader } from "./reader.js";
import { Editor } from "./editor.js";
import { Saver, pending } from "./save.js";
import { Review } from "./review.js";
import { Find } from "./find.js";
import { Exporter, askRules } from "./exporting.js";
import { events, pause } from "./sse.js";
import { help, listen } from "./keys.js";
import { stateChip, progressOf, cancelJob, deleteJob } from "./joblist.js";

const isEnded = (job) => ["succeeded", "failed", "cancelled"].includes(job.state);
const SAVE = { saved: "Saved", unsaved: "Unsaved changes", saving: "Saving…", offline: "Offline, will be saved later", conflict: "Conflict: decide", failed: "Not saved: try again" };

export class JobPage {
	constructor(main, id, time) {
		Object.assign(this, { main, id, time });
		this.leaving = new AbortController();
	}

	async open() {
		await pending.get(this.id);
		this.job = await getJson(jobPath(this.id), { signal: this.leaving.signal });
		const { job } = this;
		this.transcript = new Transcript();
		this.player = new Player(job);
		if (this.time !== null) this.player.seconds = this.time;
		this.editor = new Editor(job, this.transcript, this.player);
		this.reader = new Reader(this.transcript, this.player, this.#actions());
		this.saver = new Saver(job, this.transcript);
		Object.assign(this.editor, { reader: this.reader, saver: this.saver });
		this.review = new Review(this);
		this.find = new Find(this);
		this.exporter = new Exporter(job, this.transcript, this.saver, this.player, this.editor);
		this.#build();
		listen(this.#shortcuts(), this.leaving.signal);
		addEventListener("focus", () => this.saver.refresh(), { signal: this.leaving.signal });
		document.title = `${job.name ?? "Transcript"} – Transcripts`;
		this.player.open();
		if (isEnded(job)) await this.#load();
		else this.#follow();
	}

	async close() {
		this.leaving.abort();
		const saved = this.saver?.close(this.editor.close());
		this.reader?.close();
		this.player?.close();
		this.bubble?.remove();
		await saved;
	}

	// ---- contents

	async #load() {
		const response = await request(jobPath(this.id, "/transcript"), { signal: this.leaving.signal });
		const body = await response.json();
		this.transcript.load(body, response.headers.get("etag"));
		this.player.duration ||= body.duration;
		this.editor.isEnabled = body.complete !== false || isEnded(this.job);
		this.#showState();
		const at = this.transcript.at(this.player.seconds);
		if (this.player.seconds > 1 && at > 0) this.reader.list.show(at, { force: true });
		this.#empty();
		this.transcript.addEventListener("change", () => this.#empty());
		this.node.dataset.ready = "true";
	}

	#empty() {
		this.emptyNote?.remove();
		const { transcript, job, editor, reader } = this;
		if (transcript.segments.length || job.error) return;
		const write = editor.isEnabled && transcript.duration > 0 && button("Write a line", () => editor.insert(0, transcript.duration), { icon: "edit" });
		this.emptyNote = el("div", { class: "empty muted" }, el("p", { dir: "auto" }, job.warnings[0] ?? "No speech was recognised."), write);
		reader.scroller.prepend(this.emptyNote);
	}

	async #follow() {
		this.#watchJob();
		const stop = { signal: this.leaving.signal, onlost: (lost) => { if (lost && this.lost.hidden) say(this.lost.textContent); this.lost.hidden = !lost; } };
		try {
			for await (const { name, data } of events(this.id, stop)) {
				if (name === "segment") this.transcript.append(data);
				if (name === "progress") { Object.assign(this.job, { state: data.state, progress: data }); this.#showState(); }
				if (name === "error" && data.error?.code === "job_deleted") { toast("This recording was deleted."); location.hash = ""; return; }
			}
			if (this.leaving.signal.aborted) return;
			this.job = await getJson(jobPath(this.id));
			await this.#load();
			say(`The job has ${this.job.state}.`);
		} catch (error) { explain(error, "The job cannot be followed"); }
	}

	// The speed is only in the job itself.
	async #watchJob() {
		while (!this.leaving.signal.aborted && !isEnded(this.job)) {
			await pause(2000, this.leaving.signal);
			try {
				const job = await getJson(jobPath(this.id), { signal: this.leaving.signal, quiet: true });
				if (!isEnded(job)) { this.job = job; this.#showState(); }
			} catch { /* the events say that the connection is lost */ }
		}
	}

	// ---- the frame

	#build() {
		this.undoButton = button("Undo", () => this.editor.undo(), { icon: "undo", bare: true });
		this.redoButton = button("Redo", () => this.editor.redo(), { icon: "redo", bare: true });
		this.saveState = el("button", { type: "button", class: "save-state", onclick: () => this.#saveNow() });
		this.facts = el("p", { class: "facts" });
		this.progress = el("div", { class: "job-progress" });
		this.lost = el("p", { class: "notice", hidden: true }, "The connection is lost. The page tries again by itself; the job goes on.");
		this.viewButtons = el("div", { class: "segmented", role: "group", "aria-label": "View" }, this.#viewButton("Text", false), this.#viewButton("Subtitles", true));
		const title = el("div", { class: "title" }, el("a", { href: "#", class: "button bare", "aria-label": "All recordings", title: "All recordings" }, icon("left")), el("h1", {}, el("bdi", {}, this.job.name ?? "Recording")));
		const tools = el("div", { class: "tools", role: "toolbar", "aria-label": "Tools" }, this.viewButtons, this.undoButton, this.redoButton,
			button("Find", () => this.find.open(), { icon: "search", bare: true, title: "Find and replace (Ctrl F)" }),
			menuButton("Export", () => this.exporter.items(), { icon: "download", class: "primary export", title: "Export" }),
			menuButton("More", () => this.#more(), { icon: "more", bare: true }));
		this.node = el("div", { class: "job" },
			el("div", { class: "head" }, title, el("div", { class: "sub" }, this.facts, this.saveState), tools),
			this.progress, this.lost, this.find.node, this.review.node, this.reader.node, this.player.node);
		this.main.replaceChildren(this.node);
		this.transcript.addEventListener("change", () => this.#showTools());
		this.saver.addEventListener("state", () => this.#showSave());
		this.#showState();
	}

	#viewButton(label, subtitles) {
		return el("button", { type: "button", "aria-pressed": "false", onclick: () => this.#switchView(subtitles) }, label);
	}

	#showState() {
		const { job } = this;
		const language = this.transcript.language ?? job.language;
		const length = this.player.duration || job.progress.total;
		const facts = [stateChip(job), length && clock(length), language && languageName(language), moment(job.created_at), job.rtfx && `${job.rtfx.toFixed(1)}× real time`];
		this.facts.replaceChildren(...facts.filter(Boolean).flatMap((it, i) => (i > 1 ? [el("span", { class: "dot", "aria-hidden": "true" }, "·"), el("span", {}, it)] : [it])));
		const running = !isEnded(job);
		this.progress.hidden = !running && !job.error;
		this.progress.replaceChildren(running ? progressOf(job) : "", running ? button("Cancel the job", () => cancelJob(job), { class: "quiet" }) : "", !running && job.error ? el("p", { class: "notice error", dir: "auto" }, job.error.message) : "");
		this.#showTools();
		this.#showSave();
	}

	#showTools() {
		const { transcript } = this;
		const on = this.editor.isEnabled;
		this.undoButton.disabled = !on || !transcript.canUndo;
		this.redoButton.disabled = !on || !transcript.canRedo;
		this.undoButton.title = transcript.canUndo ? `Undo: ${transcript.undoLabel} (Ctrl Z)` : "Undo";
		this.redoButton.title = transcript.canRedo ? `Redo: ${transcript.redoLabel} (Ctrl Shift Z)` : "Redo";
		[...this.viewButtons.children].forEach((node, i) => { node.disabled = !on; node.setAttribute("aria-pressed", String(transcript.isSubtitles === Boolean(i))); });
	}

	#showSave() {
		const { state } = this.saver;
		this.saveState.hidden = !this.editor.isEnabled;
		this.saveState.dataset.state = state;
		this.saveState.textContent = state === "saved" && !this.transcript.isEdited ? "No changes" : SAVE[state];
		if (state === "conflict" || state === "failed") say(SAVE[state]);
	}

	#saveNow() { if (this.saver.state === "conflict") this.saver.resolve(); else this.saver.now(); }

	// ---- actions

	#more() {
		const on = this.editor.isEnabled;
		return [
			{ label: "Go to a time…", icon: "target", hint: "G", run: () => this.#goto() },
			{ label: "Spectrogram", checked: !this.player.spectrum.hidden, disabled: !this.player.surfer, run: () => this.player.toggleSpectrum() },
			{ label: "Reading rules…", icon: "file", run: async () => { if (await askRules()) this.reader.list.redrawAll(); } },
			null,
			{ label: "Restore the original…", icon: "undo", disabled: !on || !this.transcript.isEdited, run: () => this.#restore() },
			{ label: "Delete…", icon: "trash", run: () => deleteJob(this.job, () => { this.saver.state = "saved"; location.hash = ""; }) },
		];
	}

	async #restore() {
		if (!(await confirm("Restore the original?", "All corrections are removed, and the text is again as it was recognised. You can undo this while the page is open.", "Restore"))) return;
		try { await this.saver.restore(); this.#showState(); toast("The original is back", { action: { label: "Undo", run: () => this.editor.undo() } }); } catch (error) { explain(error, "The original could not be restored"); }
	}

	async #goto() {
		const input = el("input", { onfocus: () => input.select(), value: clock(this.player.seconds), class: "short", inputmode: "decimal", autocomplete: "off" });
		const error = el("p", { class: "error", role: "alert" });
		const submit = () => {
			const seconds = parseClock(input.value);
			error.textContent = seconds === null ? "Write a time as 1:02:03, 62:03 or 3723." : "";
			if (seconds !== null) this.player.seek(seconds);
			return seconds !== null;
		};
		await ask({ title: "Go to a time", body: [field("Time", input), error], actions: [{ label: "Cancel", value: null }, { label: "Go", value: true, kind: "primary" }], submit });
	}

	goTo(seconds) { this.player.seek(seconds); }

	async #switchView(subtitles) {
		if (!this.editor.isEnabled || this.transcript.isSubtitles === subtitles || this.switching) return;
		this.editor.commit();
		this.switching = true;
		try {
			let cues;
			if (subtitles) do cues = await this.exporter.cues(); while (this.editor.open || this.saver.isDirty); // somebody went on writing
			const { segments, speakers } = this.transcript;
			const fresh = subtitles ? toCues(segments, parseSrt(cues), speakers) : toSentences(segments);
			if (!fresh) throw new Error("Some lines have no word times.");
			this.transcript.replace(0, segments.length, fresh, subtitles ? "Cut into subtitles" : "Join into sentences");
			say(subtitles ? `${fresh.length} subtitles` : `${fresh.length} lines`);
		} catch (error) { if (error.status) explain(error, "The subtitles could not be cut"); else toast(`The subtitles could not be cut: ${error.message}`, { kind: "error" }); }
		this.switching = false;
	}

	#actions() {
		return {
			canEdit: () => this.editor.isEnabled,
			edit: (segment, offset) => this.editor.edit(segment, offset),
			speaker: (segment) => (this.editor.isEnabled ? this.editor.speaker(segment) : null),
			fillGap: (gap) => this.editor.insert(gap.start, gap.end),
			menu: (segment, opener) => openMenu(opener, this.#lineItems(segment)),
			selected: (span) => this.#bubble(span),
		};
	}

	#lineItems(segment) {
		const { editor, player, transcript } = this;
		const at = transcript.segments.indexOf(segment);
		const disabled = !editor.isEnabled;
		const isLast = at === transcript.segments.length - 1;
		const here = player.seconds;
		return [
			{ label: "Play this line", icon: "play", run: () => player.playSpan(segment.start, segment.end) },
			{ label: "Edit", icon: "edit", hint: "E", disabled, run: () => editor.edit(segment) },
			{ label: "Join with the next line", disabled: disabled || isLast, run: () => this.reader.activate(editor.join(segment), { focus: true }) },
			{ label: "Speaker…", disabled, run: () => editor.speaker(segment) },
			{ label: "Add a line after", icon: "plus", disabled, run: () => editor.insertAfter(segment) },
			{ label: `Start at ${clock(here, 1)}`, disabled: disabled || here >= segment.end, run: () => editor.setTimes(segment, here, segment.end) },
			{ label: `End at ${clock(here, 1)}`, disabled: disabled || here <= segment.start, run: () => editor.setTimes(segment, segment.start, here) },
			null,
			{ label: "Accept all doubts here", icon: "check", disabled: disabled || (!segment.doubts.length && !segment.words.some((it) => it.doubtful)), run: () => editor.accept(segment) },
			{ label: "Copy a link", icon: "link", run: () => this.exporter.copyLink(segment.start) },
			{ label: "Download as a clip…", icon: "clip", run: () => this.exporter.clip(segment.start, segment.end) },
			{ label: "Delete the line", icon: "trash", disabled, run: () => editor.remove(segment) },
		];
	}

	// A small bar beside a selection.
	#bubble(span) {
		this.bubble?.remove();
		this.bubble = null;
		if (!span || this.editor.open) return;
		this.bubble = el("div", { class: "bubble", role: "toolbar", "aria-label": "Selection" }, el("span", { class: "muted" }, spanText(span)),
			button("Play", () => this.player.playSpan(span.start, span.end), { icon: "play", class: "quiet" }),
			button("Clip…", () => this.exporter.clip(span.start, span.end), { icon: "clip", class: "quiet" }),
			button("Link", () => this.exporter.copyLink(span.start), { icon: "link", class: "quiet" }));
		this.bubble.addEventListener("pointerdown", (event) => event.preventDefault());
		this.node.append(this.bubble);
		place(this.bubble, span.box);
	}

	#line() { return this.reader.active ?? this.reader.current ?? this.transcript.segments[0]; }

	#step(step) {
		const { transcript, player } = this;
		const at = transcript.at(player.seconds + 0.02);
		const segment = transcript.segments[at];
		const now = segment ? wordIndexAt(segment, player.seconds + 0.02) : -1;
		const words = (i) => transcript.segments[i]?.words ?? [];
		const next = step > 0 ? words(at)[now + 1] ?? words(at + 1)[0] : words(at)[now - 1] ?? words(at - 1).at(-1);
		if (next) player.seek(next.start);
	}

	#move(step) {
		const { segments } = this.transcript;
		const at = segments.indexOf(this.#line());
		const to = segments[Math.max(0, Math.min(segments.length - 1, at + step))];
		if (to) this.reader.activate(to, { focus: true });
	}

	#shortcuts() {
		const { player, editor } = this;
		return {
			" ": () => player.toggle(), k: () => player.toggle(), j: () => player.skip(-10), l: () => player.skip(10),
			ArrowLeft: () => player.skip(-5), ArrowRight: () => player.skip(5), ",": () => this.#step(-1), ".": () => this.#step(1),
			"[": () => player.faster(-1), "]": () => player.faster(1), g: () => this.#goto(), f: () => this.reader.followAgain(),
			ArrowUp: () => this.#move(-1), ArrowDown: () => this.#move(1),
			n: () => this.review.go(1), p: () => this.review.go(-1), r: () => this.review.listen(), a: () => this.review.accept(),
			e: () => (this.review.current?.gap ? this.review.correct() : this.review.current && this.review.current.segment === this.#line() ? this.review.correct() : editor.edit(this.#line())),
			"/": () => this.find.open(), "ctrl+f": () => this.find.open(), "?": help, Escape: () => this.find.node.hidden || this.find.close(),
			"ctrl+z": () => editor.undo(), "ctrl+shift+z": () => editor.redo(), "ctrl+y": () => editor.redo(), "ctrl+s": () => { editor.commit(); this.saver.now(); },
		};
	}
}
