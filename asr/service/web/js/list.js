// A list that keeps only the rows near the screen in the document. Rows may have any height:
// it is estimated, and measured when a row is first shown.

import { el } from "./dom.js";

const MARGIN = 600; // pixels of rows beside the screen

export class VirtualList {
	#rows = [];
	#heights = new WeakMap();
	#tops = new Float64Array(1);
	#shown = new Map();
	#frame = 0;
	pinned = null;

	// render(row, index) makes an element, estimate(row, width) a height in pixels.
	constructor(scroller, { render, estimate, onrender }) {
		Object.assign(this, { scroller, render, estimate, onrender });
		this.canvas = el("div", { class: "canvas", role: "list" });
		scroller.append(this.canvas);
		scroller.addEventListener("scroll", () => this.#later(), { passive: true });
		this.sizes = new ResizeObserver(([entry]) => this.#resized(entry.contentRect.width));
		this.sizes.observe(scroller);
	}

	get rows() { return this.#rows; }
	element(row) { return this.#shown.get(row); }
	get shown() { return this.#shown; }

	setRows(rows) {
		const anchor = this.#anchor();
		this.#rows = rows;
		this.#place();
		this.#restore(anchor);
		this.update();
	}

	appended() {
		this.#place();
		this.#later();
	}

	redraw(row) {
		if (row === this.pinned) return; // somebody writes in it
		this.#shown.get(row)?.remove();
		this.#shown.delete(row);
		this.#heights.delete(row);
	}

	redrawAll() {
		for (const row of [...this.#shown.keys()]) this.redraw(row);
		this.#heights = new WeakMap();
		this.#place();
		this.update();
	}

	#resized(width) {
		if (width === this.width) return;
		const anchor = this.#anchor();
		this.width = width;
		this.#heights = new WeakMap();
		this.#place();
		this.#restore(anchor);
		this.update();
	}

	#later() { this.#frame ||= requestAnimationFrame(() => { this.#frame = 0; this.update(); }); }

	#place() {
		const n = this.#rows.length;
		if (this.#tops.length !== n + 1) this.#tops = new Float64Array(n + 1);
		let top = 0;
		for (let i = 0; i < n; i += 1) {
			this.#tops[i] = top;
			top += this.#heights.get(this.#rows[i]) ?? this.estimate(this.#rows[i], this.width ?? 700);
		}
		this.#tops[n] = top;
		this.canvas.style.height = `${Math.ceil(top)}px`;
	}

	indexAt(top) {
		let [low, high] = [0, Math.max(0, this.#rows.length - 1)];
		while (low < high) {
			const middle = (low + high + 1) >> 1;
			if (this.#tops[middle] <= top) low = middle; else high = middle - 1;
		}
		return low;
	}

	#anchor() {
		const at = this.indexAt(this.scroller.scrollTop);
		return { row: this.#rows[at], index: at, offset: this.scroller.scrollTop - this.#tops[at] };
	}

	#restore({ row, index, offset }) {
		if (!row || this.scroller.scrollTop === 0) return;
		const now = this.#rows[index] === row ? index : this.#rows.indexOf(row);
		this.scroller.scrollTop = this.#tops[now < 0 ? Math.min(index, this.#rows.length - 1) : now] + offset;
	}

	update() {
		if (!this.scroller.clientHeight) return;
		for (let round = 0; round < 3 && this.#draw(); round += 1);
		this.onrender?.();
	}

	// Draws the visible rows. Returns true if a height differed from its estimate.
	#draw() {
		const { scrollTop, clientHeight } = this.scroller;
		const first = this.indexAt(Math.max(0, scrollTop - MARGIN));
		const last = Math.min(this.#rows.length - 1, this.indexAt(scrollTop + clientHeight + MARGIN));
		const wanted = new Set(this.#rows.slice(first, last + 1));
		if (this.pinned && this.#rows.includes(this.pinned)) wanted.add(this.pinned);
		for (const [row, node] of this.#shown) {
			if (!wanted.has(row)) { node.remove(); this.#shown.delete(row); }
		}
		const fresh = this.#insert(first, last);
		const changed = this.#measure(fresh);
		if (changed) {
			const anchor = this.#anchor();
			this.#place();
			this.#restore(anchor);
		}
		this.#arrange(first, last);
		return changed;
	}

	#insert(first, last) {
		const fresh = [];
		let next = null;
		for (let i = last; i >= first; i -= 1) {
			let node = this.#shown.get(this.#rows[i]);
			if (!node) {
				node = this.render(this.#rows[i], i);
				node.setAttribute("role", "listitem");
				this.#shown.set(this.#rows[i], node);
				fresh.push(this.#rows[i]);
				this.canvas.insertBefore(node, next);
			}
			next = node;
		}
		return fresh;
	}

	#measure(rows) {
		let changed = false;
		const heights = rows.map((row) => this.#shown.get(row).offsetHeight);
		rows.forEach((row, i) => {
			const before = this.#heights.get(row) ?? this.estimate(row, this.width ?? 700);
			this.#heights.set(row, heights[i]);
			changed ||= Math.abs(before - heights[i]) > 0.5;
		});
		return changed;
	}

	// A row grew or shrank while it is on the screen.
	remeasure(row) {
		if (this.#shown.has(row) && this.#measure([row])) { this.#place(); this.update(); }
	}

	#arrange(first, last) {
		const put = (i) => {
			const node = this.#shown.get(this.#rows[i]);
			const top = `${this.#tops[i]}px`;
			if (node.style.top !== top) node.style.top = top;
			node.setAttribute("aria-posinset", i + 1);
			node.setAttribute("aria-setsize", this.#rows.length);
		};
		for (let i = first; i <= last; i += 1) put(i);
		const pin = this.pinned ? this.#rows.indexOf(this.pinned) : -1;
		if (pin >= 0 && this.#shown.has(this.pinned) && (pin < first || pin > last)) put(pin);
	}

	isVisible(i) {
		const { scrollTop, clientHeight } = this.scroller;
		return this.#tops[i] >= scrollTop && this.#tops[i + 1] <= scrollTop + clientHeight;
	}

	// Scrolls so that a row is about a third below the top, if it is not on the screen already.
	show(i, { force = false, smooth = false } = {}) {
		if (i < 0 || i >= this.#rows.length || (!force && this.isVisible(i))) return;
		const aim = () => Math.max(0, this.#tops[i] - this.scroller.clientHeight / 3);
		const near = Math.abs(aim() - this.scroller.scrollTop) < this.scroller.clientHeight;
		if (smooth && near && !matchMedia("(prefers-reduced-motion: reduce)").matches) this.scroller.scrollTo({ top: aim(), behavior: "smooth" });
		else { // heights near the aim are known only after they were drawn
			for (let round = 0; round < 3; round += 1) { this.scroller.scrollTop = aim(); this.update(); }
		}
	}
}
