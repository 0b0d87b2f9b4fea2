// Doubtful places one after the other: listen, accept or correct.

import { el, button, say } from "./dom.js";
import { clock } from "./format.js";
import { doubtsOf } from "./model.js";

const LEAD = 0.7; // seconds that are played before a doubtful word

export class Review {
	#items = [];
	#at = -1;

	constructor({ transcript, player, reader, editor }) {
		Object.assign(this, { transcript, player, reader, editor });
		this.count = el("span", { class: "count" });
		this.reason = el("span", { class: "reason muted", dir: "auto" });
		this.listenButton = button("Listen", () => this.listen(), { icon: "play", class: "quiet", title: "Listen again (R)" });
		this.acceptButton = button("Accept", () => this.accept(), { icon: "check", class: "quiet", title: "It is right (A)" });
		this.correctButton = button("Correct", () => this.correct(), { icon: "edit", class: "quiet", title: "Edit the line (E)" });
		this.previousButton = button("Previous doubt", () => this.go(-1), { icon: "up", bare: true, title: "Previous doubt (P)" });
		this.nextButton = button("Next doubt", () => this.go(1), { icon: "down", bare: true, title: "Next doubt (N)" });
		this.node = el("section", { class: "review", "aria-label": "Doubtful places" }, this.previousButton, this.nextButton, this.count, this.reason, el("span", { class: "space" }), this.listenButton, this.acceptButton, this.correctButton);
		transcript.addEventListener("change", () => this.#refresh());
		this.#refresh();
	}

	get current() { return this.#items[this.#at] ?? null; }

	#refresh() {
		const old = this.current;
		this.#items = doubtsOf(this.transcript);
		this.#at = old ? this.#items.findIndex((it) => it.start === old.start && it.end === old.end) : -1;
		this.#show();
	}

	#show() {
		const n = this.#items.length;
		const item = this.current;
		this.node.hidden = n === 0 && !this.reviewed;
		this.reviewed ||= n > 0;
		const place = n === 1 ? "1 doubtful place" : `${n.toLocaleString()} doubtful places`;
		this.count.textContent = !n ? "No doubts left" : item ? `Doubt ${this.#at + 1} of ${n.toLocaleString()}` : place;
		this.reason.textContent = item ? (item.gap ? `Not transcribed, ${clock(item.start)} to ${clock(item.end)}` : item.segment.doubts.join("; ")) : "";
		for (const it of [this.previousButton, this.nextButton]) it.disabled = n === 0;
		for (const it of [this.listenButton, this.acceptButton, this.correctButton]) it.hidden = !item;
		this.acceptButton.disabled = Boolean(item?.gap) || !this.editor.isEnabled;
		this.correctButton.disabled = !this.editor.isEnabled;
		this.reader.marks.doubt = item?.segment ? item : null;
		this.reader.repaint();
	}

	go(step) {
		const n = this.#items.length;
		if (!n) { say("There are no doubtful places."); return; }
		const now = this.player.seconds;
		if (this.current) this.#goTo((this.#at + step + n) % n);
		else if (step > 0) this.#goTo(Math.max(0, this.#items.findIndex((it) => it.start >= now - 0.01)));
		else this.#goTo(Math.max(0, this.#items.findLastIndex((it) => it.start < now)));
	}

	#goTo(at) {
		this.#at = at;
		this.#show();
		const item = this.current;
		const { list } = this.reader;
		list.show(list.rows.indexOf(item.segment ?? item.gap));
		if (item.segment) this.reader.activate(item.segment, { focus: true });
		const words = item.segment?.words.slice(item.first, item.last + 1).map((it) => it.word).join(" ");
		say(`${this.count.textContent}, at ${clock(item.start)}${words ? `: ${words}` : ""}. ${this.reason.textContent}`);
		this.listen();
	}

	listen() {
		const item = this.current;
		if (item) this.player.playSpan(Math.max(0, item.start - LEAD), item.end + LEAD / 2);
	}

	accept() {
		const item = this.current;
		if (!item?.segment || !this.editor.isEnabled) return;
		const at = this.#at;
		this.editor.accept(item.segment, item.first, item.last);
		if (this.#items.length) this.#goTo(at % this.#items.length);
		else say("No doubts left");
	}

	correct() {
		const item = this.current;
		if (!item) return;
		if (item.gap) { this.editor.insert(item.gap.start, item.gap.end); return; }
		const { segment, first, last } = item;
		this.editor.edit(segment);
		this.editor.selectWords(first, last);
	}
}
