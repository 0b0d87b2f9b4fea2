// The transcript on the screen: rows, clicks on words, and highlights of the current word,
// of doubts and of search results. No word has an element of its own.

import { el, button, icon } from "./dom.js";
import { clock } from "./format.js";
import { VirtualList } from "./list.js";
import { ranges, wordAt } from "./words.js";
import { openGaps, wordIndexAt } from "./model.js";
import { violations } from "./rules.js";
import { rules } from "./store.js";

const hasHighlights = Boolean(globalThis.CSS?.highlights);
const KINDS = ["doubt", "found", "found-now", "doubt-now", "current"];

export class Reader {
	active = null; // the segment that the keyboard is at
	isFollowing = true;
	marks = { found: new Map(), now: null, doubt: null };

	constructor(transcript, player, actions) {
		Object.assign(this, { transcript, player, actions });
		this.scroller = el("div", { class: "transcript", tabindex: "-1", role: "region", "aria-label": "Transcript" });
		this.follow = button("Go to the current word", () => this.followAgain(), { icon: "target", class: "follow floating", hidden: true });
		this.node = el("div", { class: "reader" }, this.scroller, this.follow);
		const parts = { render: (row) => this.#render(row), estimate: (row, width) => this.#estimate(row, width), onrender: () => this.#rendered() };
		this.list = new VirtualList(this.scroller, parts);
		this.highlights = Object.fromEntries(KINDS.map((kind, i) => [kind, hasHighlights ? Object.assign(new Highlight(), { priority: i }) : new Set()]));
		if (hasHighlights) for (const kind of KINDS) CSS.highlights.set(kind, this.highlights[kind]);
		this.#listen();
	}

	#listen() {
		this.scroller.addEventListener("click", (event) => this.#clicked(event));
		this.scroller.addEventListener("dblclick", (event) => this.#doubleClicked(event));
		this.scroller.addEventListener("keydown", (event) => this.#key(event));
		this.scroller.addEventListener("focusin", (event) => this.#focused(event));
		for (const name of ["wheel", "touchmove"]) this.scroller.addEventListener(name, () => this.#scrolledAway(), { passive: true });
		this.player.addEventListener("time", (event) => this.#moved(event.detail.seeked));
		this.transcript.addEventListener("change", (event) => this.#changed(event.detail));
		this.selecting = () => this.actions.selected(this.selection());
		document.addEventListener("selectionchange", this.selecting);
	}

	close() {
		document.removeEventListener("selectionchange", this.selecting);
		if (hasHighlights) for (const kind of KINDS) CSS.highlights.delete(kind);
		this.list.sizes.disconnect();
	}

	// ---- rows

	#changed(detail) {
		if (detail.appended && !openGaps(this.transcript).length) {
			if (this.list.rows !== this.transcript.segments) this.list.setRows(this.transcript.segments);
			return this.list.appended();
		}
		const { segments } = this.transcript;
		const { at = 0, inserted = segments.length } = detail;
		const hadFocus = document.activeElement !== this.scroller && this.scroller.contains(document.activeElement);
		if (detail.loaded) { this.active = null; this.current = null; }
		for (let i = Math.max(0, at - 1); i <= Math.min(at + inserted, segments.length - 1); i += 1) this.list.redraw(segments[i]);
		if (this.active && !segments.includes(this.active)) this.active = segments[Math.min(at, segments.length - 1)] ?? null;
		this.list.setRows(this.#rows());
		if (hadFocus && this.active && document.activeElement === document.body) this.activate(this.active, { focus: true });
		this.currentWord = null;
		this.#moved(false);
		return undefined;
	}

	#rows() {
		const gaps = openGaps(this.transcript);
		return gaps.length ? [...this.transcript.segments, ...gaps].sort((a, b) => a.start - b.start) : this.transcript.segments.slice();
	}

	#estimate(row, width) {
		if (!row.words) return 64;
		const perLine = Math.max(12, (Math.min(width, 860) - (width > 720 ? 200 : 90)) / 8.1);
		const lines = row.line ? row.text.split("\n").length : Math.ceil(row.text.length / perLine);
		return 14 + lines * 28;
	}

	#render(row) { return row.words ? this.#segmentRow(row) : this.#gapRow(row); }

	#segmentRow(segment) {
		const i = this.transcript.segments.indexOf(segment);
		const before = this.transcript.segments[i - 1];
		const isNew = segment.speaker && segment.speaker !== before?.speaker;
		const stop = segment === (this.active ?? this.transcript.segments[0]) ? "0" : "-1";
		const start = clock(segment.start, segment.line ? 1 : 0);
		const time = el("button", { type: "button", class: "time", tabindex: "-1", title: "Play from here", "aria-label": `Play from ${start}` }, start);
		const name = this.transcript.nameOf(segment.speaker);
		const speaker = isNew && el("button", { type: "button", class: "speaker", tabindex: "-1", title: "Rename or change the speaker" }, el("bdi", {}, name));
		const text = el("p", { class: "text", dir: "auto", tabindex: stop, lang: this.transcript.language }, segment.text);
		const more = el("button", { type: "button", class: "button bare more", tabindex: "-1", "aria-haspopup": "menu", "aria-label": `Actions for the line at ${clock(segment.start)}` }, icon("more"));
		const node = el("div", { class: `row${isNew ? " turn" : ""}${segment.line ? " cue" : ""}` }, time, el("div", { class: "line" }, speaker, text, this.#problems(segment, i)), more);
		node.segment = segment;
		if (segment === this.current) node.classList.add("now");
		return node;
	}

	#problems(segment, i) {
		if (!segment.line) return null;
		return problemChips(violations(segment, this.transcript.segments[i + 1], rules()));
	}

	#gapRow(gap) {
		const text = gap.reason ? `Not transcribed (${gap.reason.replaceAll("_", " ")})` : "Not transcribed";
		const time = el("button", { type: "button", class: "time", tabindex: "-1", "aria-label": `Play from ${clock(gap.start)}` }, clock(gap.start));
		const fill = this.actions.canEdit() && button("Write it", () => this.actions.fillGap(gap), { icon: "edit", class: "quiet" });
		const node = el("div", { class: "row gap" }, time, el("div", { class: "line" }, el("p", { class: "text muted" }, `${text}, ${clock(gap.start)} to ${clock(gap.end)}`), fill));
		node.segment = gap;
		return node;
	}

	// ---- pointer and keyboard

	#place(event) {
		const text = event.target.closest?.("p.text");
		const segment = text?.closest(".row")?.segment;
		if (!segment?.words) return null;
		const { clientX: x, clientY: y } = event;
		const caret = document.caretPositionFromPoint?.(x, y) ?? rangeAsCaret(document.caretRangeFromPoint?.(x, y));
		return { segment, offset: caret && text.contains(caret.offsetNode) ? caret.offset : segment.text.length };
	}

	#clicked(event) {
		const row = event.target.closest(".row");
		if (!row) return;
		if (event.target.closest(".time")) { this.player.playFrom(row.segment.start); return; }
		if (event.target.closest(".speaker")) { this.actions.speaker(row.segment); return; }
		const more = event.target.closest(".more");
		if (more) { this.actions.menu(row.segment, more); return; }
		const at = this.#place(event);
		if (!at || event.detail > 1 || !getSelection().isCollapsed) return;
		this.before = this.player.seconds;
		const word = at.segment.words[wordAt(at.segment, at.offset)];
		this.isFollowing = true;
		this.player.seek(word?.start ?? at.segment.start);
	}

	#doubleClicked(event) {
		const at = this.#place(event);
		if (!at || !this.actions.canEdit()) return;
		getSelection().removeAllRanges();
		if (this.before !== undefined) this.player.seek(this.before, false); // undo its first click
		this.actions.edit(at.segment, at.offset);
	}

	#focused(event) {
		const segment = event.target.closest(".row")?.segment;
		if (segment?.words) this.activate(segment);
	}

	activate(segment, { focus = false } = {}) {
		const set = (it, value) => this.list.element(it)?.querySelector("p.text")?.setAttribute("tabindex", value);
		if (this.active !== segment) {
			set(this.active ?? this.transcript.segments[0], "-1");
			this.active = segment;
			set(segment, "0");
		}
		if (!focus) return;
		this.list.show(this.list.rows.indexOf(segment));
		this.list.element(segment)?.querySelector("p.text")?.focus({ preventScroll: true });
	}

	#key(event) {
		if (!event.target.matches("p.text") || event.ctrlKey || event.metaKey || event.altKey) return;
		const { segments } = this.transcript;
		const at = segments.indexOf(this.active);
		const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: segments.length - 1, PageDown: at + 10, PageUp: at - 10 }[event.key];
		if (to !== undefined) {
			event.preventDefault();
			this.activate(segments[Math.max(0, Math.min(segments.length - 1, to))], { focus: true });
		} else if (event.key === "Enter") {
			event.preventDefault();
			if (this.active) this.player.playFrom(this.active.start);
		} else if (event.key === "ContextMenu" || (event.shiftKey && event.key === "F10")) {
			event.preventDefault();
			this.actions.menu(this.active, this.list.element(this.active).querySelector(".more"));
		}
	}

	#scrolledAway() {
		this.isFollowing = false;
		requestAnimationFrame(() => this.#offerFollow());
	}

	#offerFollow() {
		const i = this.current ? this.list.rows.indexOf(this.current) : -1;
		this.follow.hidden = this.isFollowing || i < 0 || this.list.isVisible(i);
	}

	followAgain() {
		this.isFollowing = true;
		this.follow.hidden = true;
		if (this.current) this.list.show(this.list.rows.indexOf(this.current), { force: true });
	}

	// The words that are selected with the mouse, as {start, end, text}; null if none are.
	selection() {
		const chosen = getSelection();
		if (chosen.isCollapsed || !chosen.rangeCount || !this.scroller.contains(chosen.anchorNode)) return null;
		const range = chosen.getRangeAt(0);
		const rowOf = (node) => (node.nodeType === 1 ? node : node.parentElement).closest(".row")?.segment;
		const [first, last] = [rowOf(range.startContainer), rowOf(range.endContainer)];
		if (!first?.words?.length || !last?.words?.length) return null;
		const offsetOf = (node, offset, segment) => (node.nodeType === 3 && node.data === segment.text ? offset : 0);
		const from = first.words[Math.max(0, ranges(first).findIndex(([, end]) => end > offsetOf(range.startContainer, range.startOffset, first)))];
		const to = last.words[Math.max(0, wordAt(last, Math.max(0, offsetOf(range.endContainer, range.endOffset, last) - 1)))];
		return to.end > from.start ? { start: from.start, end: to.end, text: chosen.toString(), box: range.getBoundingClientRect() } : null;
	}

	// ---- highlights

	#moved(seeked) {
		const { segments } = this.transcript;
		const at = this.transcript.at(this.player.seconds + 0.02);
		const segment = segments[at] ?? null;
		if (seeked) this.isFollowing = true;
		if (segment !== this.current) {
			this.list.element(this.current)?.classList.remove("now");
			this.current = segment;
			this.list.element(segment)?.classList.add("now");
			if (!seeked && this.player.isPlaying && this.isFollowing && segment && !this.list.pinned) this.list.show(this.list.rows.indexOf(segment), { smooth: true });
			this.#offerFollow();
		}
		if (seeked && segment) this.list.show(this.list.rows.indexOf(segment));
		const word = segment ? wordIndexAt(segment, this.player.seconds + 0.02) : -1;
		if (segment === this.currentSegment && word === this.currentWord) return;
		Object.assign(this, { currentSegment: segment, currentWord: word });
		this.#paintCurrent();
	}

	#paintCurrent() {
		this.highlights.current.clear();
		if (this.current && this.currentWord >= 0) this.#mark("current", this.current, this.currentWord, this.currentWord);
	}

	#rendered() {
		for (const kind of KINDS) if (kind !== "current") this.highlights[kind].clear();
		for (const row of this.list.shown.keys()) if (row.words) this.#paint(row);
		this.#paintCurrent();
		this.actions.rendered?.();
	}

	#paint(segment) {
		segment.words.forEach((word, i) => { if (word.doubtful) this.#mark("doubt", segment, i, i); });
		for (const span of this.marks.found.get(segment) ?? []) this.#range(span === this.marks.now ? "found-now" : "found", segment, ...span);
		const { doubt } = this.marks;
		if (doubt?.segment === segment) this.#mark("doubt-now", segment, doubt.first, doubt.last);
	}

	repaint() { this.#rendered(); }

	#mark(kind, segment, first, last) {
		const all = ranges(segment);
		if (all[first] && all[last]) this.#range(kind, segment, all[first][0], all[last][1]);
	}

	#range(kind, segment, start, end) {
		const node = this.list.element(segment)?.querySelector("p.text")?.firstChild;
		if (!hasHighlights || !node || end > node.length) return;
		const range = new StaticRange({ startContainer: node, startOffset: start, endContainer: node, endOffset: end });
		this.highlights[kind].add(range);
	}
}

const rangeAsCaret = (range) => range && { offsetNode: range.startContainer, offset: range.startOffset };

export function problemChips(found) {
	return el("div", { class: "problems" }, found.map(({ text, short }) => el("span", { class: "chip bad", title: text }, icon("warn"), el("span", { class: "hidden" }, text), el("span", { "aria-hidden": "true" }, short))));
}
