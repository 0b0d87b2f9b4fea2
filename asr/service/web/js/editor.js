// Edits of lines: text, cut, join, speaker, times. Changed words get their times from the server.

import { el, ask, field, choice, say, toast } from "./dom.js";
import { clock } from "./format.js";
import { sendJson, jobPath } from "./api.js";
import { split, merge, withText, withTimes, accepted } from "./model.js";
import { ranges, estimated, cleaned } from "./words.js";
import { pause } from "./sse.js";
import { violations, rewrap } from "./rules.js";
import { problemChips } from "./reader.js";
import { rules } from "./store.js";

export class Editor {
	#queue = []; // changed lines that have no aligned times yet: [old, fresh]
	#timed = new Map(); // lines with aligned times that are not shown yet
	#aligning = null;
	open = null; // the line that is being edited: {segment, area}
	isEnabled = false;

	constructor(job, transcript, player) { Object.assign(this, { job, transcript, player }); }

	// ---- one line in a text field

	edit(old, offset) {
		if (!this.isEnabled || !old) return;
		this.commit();
		const [segment] = this.#find(old);
		const { list } = this.reader;
		const at = list.rows.indexOf(segment);
		if (at < 0) return;
		list.pinned = segment;
		list.show(at);
		const row = list.element(segment);
		const text = row.querySelector("p.text");
		const hint = segment.line ? "Enter saves, Shift+Enter breaks the line, Ctrl+Enter splits the cue" : "Enter saves, Ctrl+Enter splits the line, Esc cancels";
		const area = el("textarea", { class: "text", dir: "auto", rows: 1, spellcheck: "true", "aria-label": `Line at ${clock(segment.start)}. ${hint}`, lang: this.transcript.language, value: segment.text });
		const note = el("div", { class: "hint", "aria-hidden": "true" }, hint);
		text.hidden = true;
		text.after(area, note);
		row.classList.add("editing");
		this.open = { segment, area, row, note };
		area.addEventListener("keydown", (event) => this.#key(event));
		area.addEventListener("input", () => this.#grown());
		area.addEventListener("blur", () => { if (document.hasFocus()) this.commit(); });
		this.#grown();
		area.focus({ preventScroll: true });
		area.setSelectionRange(offset ?? segment.text.length, offset ?? segment.text.length);
	}

	// Selects words of the open line, so that typing replaces them.
	selectWords(first, last) {
		if (!this.open) return;
		const all = ranges(this.open.segment);
		this.open.area.setSelectionRange(all[first]?.[0] ?? 0, all[last]?.[1] ?? 0);
	}

	#grown() {
		const { area, segment, row } = this.open;
		area.style.height = "auto";
		area.style.height = `${area.scrollHeight + 2}px`;
		if (segment.line) {
			const next = this.transcript.segments[this.transcript.segments.indexOf(segment) + 1];
			row.querySelector(".problems")?.replaceWith(problemChips(violations({ ...segment, text: area.value }, next, rules())));
		}
		this.reader.list.remeasure(segment);
	}

	#key(event) {
		const { area, segment } = this.open;
		const { key, shiftKey: shift } = event;
		const ctrl = event.ctrlKey || event.metaKey;
		event.stopPropagation();
		const at = area.selectionStart;
		const isBare = area.selectionEnd === at;
		const run = (act) => { event.preventDefault(); act(); };
		if (event.isComposing) return;
		if (key === "Escape") run(() => this.cancel());
		else if (key === "Enter" && ctrl) run(() => this.splitAt(at));
		else if (key === "Enter" && !(shift && segment.line)) run(() => this.commit({ focus: true }));
		else if (key === "Backspace" && at === 0 && isBare) run(() => this.#joinFromEdit(-1));
		else if (key === "Delete" && at === area.value.length && isBare) run(() => this.#joinFromEdit(1));
		else if (key === " " && ctrl) run(() => this.player.toggle());
		else if (key === "s" && ctrl) run(() => { this.commit({ focus: true }); this.saver.now(); });
		else if ((key === "ArrowDown" || key === "ArrowUp") && ctrl) run(() => this.#editNext(key === "ArrowDown" ? 1 : -1));
		else if (key === "Tab") this.commit({ focus: true });
	}

	#editNext(step) {
		const [, at] = this.#find(this.open.segment);
		const now = this.commit();
		const next = this.transcript.segments[at + (now || step < 0 ? step : 0)];
		if (next) { this.player.seek(next.start); this.edit(next, 0); } else this.reader.activate(now ?? this.reader.active, { focus: true });
	}

	#close() {
		const { row, area, note, segment, late } = this.open;
		const had = document.activeElement === area;
		this.open = null;
		area.remove();
		note.remove();
		row.classList.remove("editing");
		row.querySelector("p.text").hidden = false;
		this.reader.list.pinned = null;
		this.reader.list.remeasure(segment);
		if (late) this.transcript.refine([late]);
		return had;
	}

	cancel() {
		const open = this.open?.segment;
		if (!open) return;
		this.#close();
		const segment = this.transcript.latest(open);
		this.reader.list.redraw(segment);
		this.reader.list.update();
		if (!segment.text) this.remove(segment);
		this.reader.activate(segment.text ? segment : this.reader.active, { focus: true });
	}

	// Takes the text of the open line over. Returns the segment as it is now.
	commit({ focus = false } = {}) {
		if (!this.open) return null;
		const { segment, area } = this.open;
		const value = area.value;
		const had = this.#close() && focus;
		const now = this.setText(segment, value);
		if (had) this.reader.activate(now ?? this.reader.active, { focus: true });
		return now;
	}

	// A segment as it is now, and its index; -1 if it was removed meanwhile.
	#find(segment) {
		const now = this.transcript.latest(segment);
		return [now, this.transcript.segments.indexOf(now)];
	}

	setText(old, value, label = "Edit") {
		const [segment, at] = this.#find(old);
		if (at < 0) return segment;
		const fresh = withText(segment, value);
		if (!fresh.text) { this.remove(segment); return null; }
		if (fresh === segment) return segment;
		this.transcript.replace(at, 1, [fresh], label);
		this.align([[segment, fresh]]);
		return fresh;
	}

	// ---- cut and join

	splitAt(offset) {
		const now = this.#committedWith(offset);
		if (!now) return;
		const at = this.transcript.segments.indexOf(now.segment);
		const parts = split(now.segment, now.offset);
		if (!parts) { this.edit(now.segment, now.offset); say("There must be a word on both sides of a split."); return; }
		const fresh = now.segment.line ? parts.map((it) => this.#spaced(rewrap(it, rules()), parts)) : parts;
		const last = this.transcript.at(fresh[1].start); // lines of another channel may begin before the second part
		this.transcript.replace(at, last - at + 1, [fresh[0], ...this.transcript.segments.slice(at + 1, last + 1), fresh[1]], "Split");
		this.#alignRest(fresh);
		this.edit(fresh[1], 0);
	}

	// A cut through a cue leaves the gap that the rules ask for, if there is room.
	#spaced(part, [left, right]) {
		if (part.start !== left.start) return part;
		const end = Math.min(left.end, right.start - rules().min_gap);
		return end > part.start + 0.1 ? withTimes(part, part.start, end) : part;
	}

	#committedWith(offset) {
		const { segment, area } = this.open;
		const value = area.value;
		if (value === segment.text) { this.#close(); return { segment: this.transcript.latest(segment), offset }; }
		const before = value.slice(0, offset).trim().replace(segment.line ? /[^\S\n]+/gu : /\s+/gu, " ").length;
		this.#close();
		const now = this.setText(segment, value);
		return now && { segment: now, offset: before };
	}

	#joinFromEdit(step) {
		const now = this.commit({ focus: true });
		if (!now) return;
		const at = this.transcript.segments.indexOf(now);
		const first = step < 0 ? at - 1 : at;
		const left = this.transcript.segments[first];
		if (!left || !this.transcript.segments[first + 1]) this.edit(now, step < 0 ? 0 : undefined);
		else this.edit(this.join(left), left.text.length);
	}

	join(old) {
		const [segment, at] = this.#find(old);
		const next = this.transcript.segments[at + 1];
		if (at < 0 || !next) return segment;
		const fresh = merge(segment, next, rules());
		this.transcript.replace(at, 2, [fresh], "Join lines");
		this.#alignRest([fresh]);
		return fresh;
	}

	remove(segment) {
		const [, at] = this.#find(segment);
		if (at < 0) return;
		this.transcript.replace(at, 1, [], "Delete line");
		if (segment.text) toast("Line deleted", { action: { label: "Undo", run: () => this.undo() } });
	}

	// Writes a new line into a span without one.
	insert(start, end, speaker = null) {
		const at = this.transcript.at(start) + 1;
		const line = this.transcript.isSubtitles;
		const fresh = { start, end, text: "", speaker, words: [], doubts: [], line }; // removed again if nobody writes
		this.transcript.replace(at, 0, [fresh], "Add line");
		this.edit(fresh, 0);
	}

	insertAfter(old) {
		const [segment, at] = this.#find(old);
		const next = this.transcript.segments[at + 1];
		const limit = next ? next.start : this.transcript.duration || segment.end + 2;
		if (limit - segment.end < 0.2) { toast("There is no time between this line and the next one. Split a line instead."); return; }
		this.insert(segment.end, Math.min(limit, segment.end + 5), segment.speaker);
	}

	setTimes(old, start, end) {
		const [segment, at] = this.#find(old);
		if (at < 0) return;
		const [before, next] = [this.transcript.segments[at - 1], this.transcript.segments[at + 1]];
		const high = next ? Math.max(next.end, segment.end) : this.transcript.duration || Infinity;
		const from = Math.min(Math.max(before?.start ?? 0, start), next?.start ?? Infinity); // lines stay in order
		const to = Math.min(high, end);
		if (to - from < 0.05) { toast("A line must end after it begins."); return; }
		this.transcript.replace(at, 1, [withTimes(segment, from, to)], "Change times");
	}

	accept(old, first, last) {
		const [segment, at] = this.#find(old);
		if (at >= 0) this.transcript.replace(at, 1, [accepted(segment, first, last)], "Accept");
	}

	// ---- speakers

	async speaker(segment) {
		const known = [...new Set(this.transcript.segments.map((it) => it.speaker).filter(Boolean))];
		const name = el("input", { value: this.transcript.nameOf(segment.speaker) ?? "", dir: "auto", maxlength: 100, autocomplete: "off" });
		const rename = segment.speaker ? "everywhere" : "line";
		const scope = choice([...(segment.speaker ? [["everywhere", `Rename ${this.transcript.nameOf(segment.speaker)} everywhere`]] : []), ["line", "Only this line has another speaker"], ["below", "This and all following lines of this speaker"]], rename);
		const list = el("datalist", { id: "speakers" }, known.map((it) => el("option", { value: this.transcript.nameOf(it) })));
		name.setAttribute("list", "speakers");
		const done = await ask({ title: "Speaker", body: [field("Name", name), list, field("What to change", scope)], actions: [{ label: "Cancel", value: null }, { label: "Save", value: true, kind: "primary" }] });
		if (done) this.#setSpeaker(segment, cleaned(name.value).trim(), scope.value, known);
	}

	#setSpeaker(old, name, scope, known) {
		const { transcript } = this;
		const [segment, from] = this.#find(old);
		const found = known.find((it) => transcript.nameOf(it) === name);
		if (scope === "everywhere") {
			if (!name || found === segment.speaker) return;
			const speaker = found ?? segment.speaker; // two speakers with one name become one
			transcript.replace(0, transcript.segments.length, transcript.segments.map((it) => (it.speaker === segment.speaker ? { ...it, speaker } : it)), "Rename speaker", { ...transcript.speakers, [speaker]: name });
			say(`${name} in all lines of this speaker`);
			return;
		}
		if (from < 0) return;
		const id = name ? found ?? this.#freshSpeaker(known) : null;
		const speakers = id && !found ? { ...transcript.speakers, [id]: name } : transcript.speakers;
		const to = scope === "line" ? from + 1 : transcript.segments.length;
		const fresh = transcript.segments.slice(from, to).map((it) => (it === segment || it.speaker === segment.speaker ? { ...it, speaker: id } : it));
		transcript.replace(from, to - from, fresh, "Change speaker", speakers);
	}

	#freshSpeaker(known) {
		const letters = ["", ..."ABCDEFGHIJKLMNOPQRSTUVWXYZ"];
		return letters.flatMap((a) => letters.map((b) => a + b)).find((it) => it && !known.includes(it) && !(it in this.transcript.speakers));
	}

	// ---- undo

	undo() { this.#travel(this.transcript.undo(), "Undone"); }
	redo() { this.#travel(this.transcript.redo(), "Done again"); }

	#travel(step, what) {
		if (!step) { say("Nothing to undo"); return; }
		say(`${what}: ${step.label}`);
		const segment = this.transcript.segments[Math.min(step.at, this.transcript.segments.length - 1)];
		if (segment && step.removed.length < 50) this.reader.activate(segment, { focus: true });
	}

	// ---- times of changed words

	align(pairs) {
		this.#queue = [...pairs, ...this.#queue]; // a line that somebody edits goes before thousands that were replaced
		this.#aligning ??= this.#alignAll().finally(() => { this.#aligning = null; });
	}

	// Aligns words of lines that were split or joined before their times came.
	#alignRest(segments) { this.align(segments.filter((it) => it.words.some((word) => estimated.has(word))).map((it) => [it, it])); }

	async #alignAll() {
		for (let shown = performance.now(); this.#queue.length;) {
			const [old, fresh] = this.#queue.shift();
			const timed = this.transcript.segments.includes(fresh) && await this.#asked(old, fresh);
			if (timed) this.#timed.set(fresh, timed);
			if (this.#queue.length && performance.now() < shown + 10_000) continue; // every change is drawn and saved
			this.#refine([...this.#timed]);
			this.#timed.clear();
			shown = performance.now();
		}
	}

	#refine(pairs) {
		const { open } = this;
		const late = open && pairs.find(([fresh]) => fresh === open.segment);
		if (late) open.late = late;
		if (!this.isClosed) this.transcript.refine(pairs.filter((it) => it !== late));
	}

	// Where the words of a line may lie. Added words may be said up to 2 s before or after it, if no other line is there.
	#room(old, fresh) {
		const { segments, duration } = this.transcript;
		const { start, end, words, line } = fresh;
		const at = segments.indexOf(fresh);
		const more = words.length > old.words.length ? 2 : 0;
		const gap = line ? rules().min_gap : 0;
		const beside = (i) => this.#timed.get(segments[i]) ?? segments[i];
		const [from, to] = [beside(at - 1)?.end + gap || 0, beside(at + 1)?.start - gap || duration || end];
		return [Math.min(start, Math.max(from, start - more)), Math.max(end, Math.min(to, end + more))];
	}

	// The segment with aligned times; null if it keeps the estimated ones.
	async #asked(old, fresh) {
		try {
			const [start, end] = this.#room(old, fresh);
			const body = { words: old.words.filter((it) => !estimated.has(it)), text: fresh.text, start, end };
			const { words } = await (await sendJson("POST", jobPath(this.job.id, "/realign"), body)).json();
			if (words.length !== fresh.words.length) return null;
			const fit = (value) => Math.min(end, Math.max(start, value));
			const timed = words.map((it, i) => ({ ...fresh.words[i], ...it, start: fit(it.start), end: fit(it.end), doubtful: fresh.words[i].doubtful }));
			return { ...fresh, start: Math.min(fresh.start, timed[0].start), end: Math.max(fresh.end, timed.at(-1).end), words: timed };
		} catch (error) {
			if (error.status < 500 && error.status !== 429) return null;
			await pause(3000); // the service is away: later
			if (!this.isClosed) this.#queue.push([old, fresh]);
			return null;
		}
	}

	// Waits for the line that is being aligned, but not long: then its words keep their estimated times.
	async close() {
		this.commit();
		this.#queue = [];
		await Promise.race([this.#aligning, pause(5000)]);
		this.isClosed = true;
	}
}
