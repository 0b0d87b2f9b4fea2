// The transcript while it is edited: segments, names of speakers, undo and redo.
// Segments and words are never changed in place; every change makes new ones.

import { joined, ranges, rewrite, breakLines, cleaned } from "./words.js";

export function normalised(segment) {
	const words = (segment.words ?? []).map(({ text, word = text, ...rest }) => ({ word, ...rest }));
	return { ...segment, words, speaker: segment.speaker ?? null, doubts: segment.doubts ?? [], line: Boolean(segment.line) };
}

export class Transcript extends EventTarget {
	segments = [];
	speakers = {};
	gaps = [];
	duration = 0;
	etag = null;
	isEdited = false;
	#done = [];
	#undone = [];
	#refined = new WeakMap();

	load(body, etag) {
		this.segments = body.segments.map(normalised);
		Object.assign(this, { speakers: { ...body.speakers }, gaps: body.gaps ?? [], duration: body.duration ?? 0, language: body.language, etag, isEdited: body.edited });
		this.#done = [];
		this.#undone = [];
		this.#tell({ all: true, loaded: true });
	}

	append(segment) {
		this.segments.push(normalised(segment));
		this.#tell({ all: false, appended: true });
	}

	get canUndo() { return this.#done.length > 0; }
	get canRedo() { return this.#undone.length > 0; }
	get undoLabel() { return this.#done.at(-1)?.label; }
	get redoLabel() { return this.#undone.at(-1)?.label; }

	// Replaces `count` segments from `at`. All edits go through here.
	replace(at, count, segments, label, speakers = this.speakers) {
		const step = { at, removed: this.segments.slice(at, at + count), inserted: segments, before: this.speakers, after: speakers, label };
		const { removed } = step;
		const last = this.#done.at(-1);
		if (count === 1 && last?.label === "Add line" && last.inserted[0] === removed[0] && !removed[0].text) { // a new line and its text are one step
			this.#done.pop();
			Object.assign(step, { removed: [], label: last.label });
		}
		if (step.removed.length + segments.length) this.#done.push(step);
		if (this.#done.length > 500) this.#done.shift();
		this.#undone = [];
		this.#apply(step, removed, segments, speakers);
	}

	#apply(step, out, into, speakers) {
		if (out.length > 10_000 || into.length > 10_000) this.segments = [...this.segments.slice(0, step.at), ...into, ...this.segments.slice(step.at + out.length)];
		else this.segments.splice(step.at, out.length, ...into);
		this.speakers = speakers;
		this.#tell({ at: step.at, inserted: into.length, edited: true });
	}

	undo() {
		const step = this.#done.pop();
		if (!step) return null;
		this.#undone.push(step);
		this.#apply(step, step.inserted, step.removed, step.before);
		return step;
	}

	redo() {
		const step = this.#undone.pop();
		if (!step) return null;
		this.#done.push(step);
		this.#apply(step, step.removed, step.inserted, step.after);
		return step;
	}

	// Gives edited segments their aligned times: pairs [old, fresh]. They belong to the edits, so undo takes both back.
	refine(pairs) {
		const found = new Map(pairs);
		const { segments } = this;
		const ats = segments.flatMap((it, i) => (found.has(it) ? [i] : []));
		if (!ats.length) return;
		for (const i of ats) { // the lines beside it may have changed since
			const [old, before, next] = [segments[i], found.get(segments[i - 1]) ?? segments[i - 1], segments[i + 1]];
			const { start, end } = found.get(old);
			found.set(old, withTimes(found.get(old), Math.max(start, Math.min(old.start, before?.end ?? 0)), Math.min(end, Math.max(old.end, next?.start ?? end))));
		}
		for (const [old, fresh] of found) this.#refined.set(old, fresh);
		const lists = [...this.#done, ...this.#undone].flatMap((step) => [step.removed, step.inserted]);
		for (const list of [this.segments, ...lists]) list.forEach((it, i) => { if (found.has(it)) list[i] = found.get(it); });
		this.#tell({ at: ats[0], inserted: ats.at(-1) - ats[0] + 1, edited: true, refined: true });
	}

	// A segment that a menu or a dialog was opened for, as it is since it was aligned.
	latest(segment) { return this.#refined.get(segment) ?? segment; }

	#tell(detail) { this.dispatchEvent(new CustomEvent("change", { detail })); }

	nameOf(speaker) { return (speaker && this.speakers[speaker]) || (/^[A-Z]{1,2}$/.test(speaker ?? "") ? `Speaker ${speaker}` : /^channel \d+$/.test(speaker ?? "") ? `C${speaker.slice(1)}` : speaker); }

	// The last segment that starts at or before a time; -1 before the first.
	at(seconds) {
		let [low, high] = [-1, this.segments.length - 1];
		while (low < high) {
			const middle = (low + high + 1) >> 1;
			if (this.segments[middle].start <= seconds) low = middle; else high = middle - 1;
		}
		return low;
	}

	get isSubtitles() { return this.segments.length > 0 && this.segments[0].line; }
}

export function wordIndexAt(segment, seconds) {
	const { words } = segment;
	let [low, high] = [-1, words.length - 1];
	while (low < high) {
		const middle = (low + high + 1) >> 1;
		if (words[middle].start <= seconds) low = middle; else high = middle - 1;
	}
	return low;
}

export function withText(segment, text) {
	text = cleaned(text);
	const clean = segment.line ? text.split("\n").map((it) => it.trim().replace(/[^\S\n]+/gu, " ")).filter(Boolean).join("\n") : text.trim().replace(/\s+/gu, " ");
	if (clean === segment.text) return segment;
	const words = rewrite(segment, clean);
	return { ...segment, text: clean, words, doubts: words.some((it) => it.doubtful) ? segment.doubts : [] };
}

// Two segments, cut before the word at a character; null if one would be empty.
export function split(segment, offset) {
	const at = ranges(segment).findIndex(([start, end]) => (start + end) / 2 >= offset);
	const cut = at < 0 ? offset : ranges(segment)[at][0];
	const [left, right] = [segment.text.slice(0, cut).trimEnd(), segment.text.slice(cut).trimStart()];
	if (!left || !right || at <= 0) return null;
	const [before, after] = [segment.words.slice(0, at), segment.words.slice(at)];
	const doubts = (words) => (words.some((it) => it.doubtful) ? segment.doubts : []);
	return [
		{ ...segment, text: left, words: before, end: Math.max(segment.start, ...before.map((it) => it.end)), doubts: doubts(before) },
		{ ...segment, text: right, words: after, start: Math.min(after[0].start, segment.end), doubts: doubts(after) },
	];
}

export function merge(a, b, limits) {
	const text = joined(a.text, b.text);
	const lines = a.line ? breakLines(text.replaceAll("\n", " "), limits.max_line_width, limits.max_line_count) : text;
	const last = a.words.at(-1)?.start ?? a.start; // lines of two channels may overlap
	const words = b.words.map((it) => (it.start < last ? { ...it, start: last, end: Math.max(it.end, last) } : it));
	return { ...a, text: lines, words: [...a.words, ...words], end: Math.max(a.end, b.end), doubts: [...new Set([...a.doubts, ...b.doubts])] };
}

// The same segment with another start and end; words outside are moved to its edges.
export function withTimes(segment, start, end) {
	const fit = (value) => Math.min(end, Math.max(start, value));
	const words = segment.words.map((word) => ({ ...word, start: fit(word.start), end: fit(word.end) }));
	return { ...segment, start, end, words };
}

export function accepted(segment, first = 0, last = segment.words.length - 1) {
	const words = segment.words.map((word, i) => (i >= first && i <= last && word.doubtful ? { ...word, doubtful: false } : word));
	return { ...segment, words, doubts: words.some((it) => it.doubtful) ? segment.doubts : [] };
}

// The places that need a look: runs of doubtful words, doubtful lines, and gaps without a line.
export function doubtsOf(transcript) {
	const found = [];
	for (const segment of transcript.segments) {
		const before = found.length;
		segment.words.forEach((word, i) => {
			const last = found.at(-1);
			if (!word.doubtful) return;
			if (last?.segment === segment && last.last === i - 1) Object.assign(last, { last: i, end: word.end });
			else found.push({ segment, first: i, last: i, start: word.start, end: word.end });
		});
		if (segment.doubts.length && found.length === before) found.push({ segment, first: 0, last: segment.words.length - 1, start: segment.start, end: segment.end });
	}
	return [...found, ...openGaps(transcript).map((gap) => ({ gap, start: gap.start, end: gap.end }))].sort((a, b) => a.start - b.start);
}

// Gaps in which nobody has written a line yet.
export const openGaps = ({ gaps, segments }) => gaps.filter((gap) => !segments.some((it) => it.start >= gap.start - 0.01 && it.end <= gap.end + 0.01));
