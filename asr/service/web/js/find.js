// Find and replace in the whole transcript. The browser's own search sees only the rows on the screen.

import { el, button, check, say, toast } from "./dom.js";
import { withText } from "./model.js";

export class Find {
	#found = [];
	#at = -1;

	constructor({ transcript, player, reader, editor }) {
		Object.assign(this, { transcript, player, reader, editor });
		this.query = el("input", { type: "search", placeholder: "Find", "aria-label": "Find", dir: "auto", autocomplete: "off", spellcheck: "false" });
		this.other = el("input", { placeholder: "Replace with", "aria-label": "Replace with", dir: "auto", autocomplete: "off" });
		this.count = el("span", { class: "count muted" });
		this.matchCase = check("Match case", false, () => this.search());
		this.wholeWords = check("Whole words", false, () => this.search());
		const next = button("Next match", () => this.go(1), { icon: "down", bare: true, title: "Next (Enter)" });
		const back = button("Previous match", () => this.go(-1), { icon: "up", bare: true, title: "Previous (Shift+Enter)" });
		this.replaceParts = el("div", { class: "find-row" }, this.other, button("Replace", () => this.replace(), { class: "quiet" }), button("Replace all", () => this.replaceAll(), { class: "quiet" }));
		this.node = el("search", { class: "find", hidden: true, "aria-label": "Find and replace" },
			el("div", { class: "find-row" }, this.query, this.count, back, next, this.matchCase, this.wholeWords, el("span", { class: "space" }), button("Close the search", () => this.close(), { icon: "close", bare: true, title: "Close (Esc)" })),
			this.replaceParts);
		this.query.addEventListener("input", () => this.search());
		this.node.addEventListener("keydown", (event) => this.#key(event));
		transcript.addEventListener("change", () => { if (!this.node.hidden) this.search({ stay: true }); });
	}

	open() {
		const chosen = String(getSelection()).trim();
		this.node.hidden = false;
		this.replaceParts.hidden = !this.editor.isEnabled;
		if (chosen && !chosen.includes("\n")) this.query.value = chosen;
		this.query.select();
		this.query.focus();
		this.search();
	}

	close() {
		const here = this.#found[this.#at]?.segment ?? this.reader.active ?? this.transcript.segments[0];
		this.node.hidden = true;
		this.#found = [];
		this.#mark();
		if (here) this.reader.activate(here, { focus: true });
	}

	#key(event) {
		event.stopPropagation();
		if (event.key === "Escape") this.close();
		if (event.key === "Enter" && event.target === this.query) { event.preventDefault(); this.go(event.shiftKey ? -1 : 1); }
		if (event.key === "Enter" && event.target === this.other) { event.preventDefault(); this.replace(); }
	}

	#pattern() {
		const plain = this.query.value.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&").replace(/\s+/gu, "\\s+");
		if (!plain) return null;
		const edge = this.wholeWords.input.checked ? ["(?<![\\p{L}\\p{M}\\p{N}])", "(?![\\p{L}\\p{M}\\p{N}])"] : ["", ""];
		return new RegExp(edge[0] + plain + edge[1], this.matchCase.input.checked ? "gu" : "giu");
	}

	search({ stay = false } = {}) {
		const pattern = this.#pattern();
		const before = this.#found[this.#at];
		this.#found = [];
		if (pattern) for (const segment of this.transcript.segments) for (const hit of segment.text.matchAll(pattern)) this.#found.push({ segment, span: [hit.index, hit.index + hit[0].length] });
		const from = this.reader.active?.start ?? this.player.seconds;
		this.#at = stay && before ? Math.min(this.#at, this.#found.length - 1) : Math.max(0, this.#found.findIndex((it) => it.segment.start >= from - 0.01));
		if (!this.#found.length) this.#at = -1;
		this.#mark();
		if (!stay && this.#at >= 0) this.#show();
	}

	#mark() {
		const { marks } = this.reader;
		marks.found = new Map();
		for (const { segment, span } of this.#found) {
			if (!marks.found.has(segment)) marks.found.set(segment, []);
			marks.found.get(segment).push(span);
		}
		marks.now = this.#found[this.#at]?.span ?? null;
		const n = this.#found.length;
		this.count.textContent = !this.query.value ? "" : n ? `${this.#at + 1} of ${n.toLocaleString()}` : "Nothing found";
		this.reader.repaint();
	}

	#show() {
		const { list } = this.reader;
		list.show(list.rows.indexOf(this.#found[this.#at].segment));
		this.reader.isFollowing = false;
		say(this.count.textContent);
	}

	go(step) {
		const n = this.#found.length;
		if (!n) { say("Nothing found"); return; }
		this.#at = (this.#at + step + n) % n;
		this.#mark();
		this.#show();
		this.reader.activate(this.#found[this.#at].segment);
	}

	replace() {
		const hit = this.#found[this.#at];
		if (!hit || !this.editor.isEnabled) return;
		const { segment, span: [start, end] } = hit;
		const row = this.transcript.segments.indexOf(segment);
		const now = this.editor.setText(segment, segment.text.slice(0, start) + this.other.value + segment.text.slice(end), "Replace");
		const behind = now ? now.text.length - (segment.text.length - end) : 0; // what was written is not found again
		const next = this.#found.findIndex((it) => { const at = this.transcript.segments.indexOf(it.segment); return at > row || (at === row && it.span[0] >= behind); });
		this.#at = this.#found.length ? Math.max(0, next) : -1;
		this.#mark();
		if (this.#at >= 0) this.#show();
	}

	replaceAll() {
		const pattern = this.#pattern();
		const n = this.#found.length;
		if (!pattern || !n || !this.editor.isEnabled) return;
		const pairs = [];
		const value = this.other.value;
		const fresh = this.transcript.segments.flatMap((segment) => {
			const text = segment.text.replace(pattern, () => value);
			if (text === segment.text) return [segment];
			const changed = withText(segment, text);
			if (!changed.text) return [];
			pairs.push([segment, changed]);
			return [changed];
		});
		this.transcript.replace(0, this.transcript.segments.length, fresh, "Replace all");
		this.editor.align(pairs);
		toast(`${n.toLocaleString()} replaced`, { action: { label: "Undo", run: () => this.editor.undo() } });
	}
}
