// Words in a line of text: where they stand, and which ones an edit has kept. The service takes words of 1000 characters.

const UNSPACED = "\\p{sc=Han}\\p{sc=Hiragana}\\p{sc=Katakana}\\p{sc=Thai}\\p{sc=Lao}\\p{sc=Khmer}\\p{sc=Myanmar}";
const TOKEN = new RegExp(`[${UNSPACED}][\\p{M}\\p{P}]{0,999}|[^\\s${UNSPACED}]{1,1000}`, "gu");
const endsUnspaced = new RegExp(`[${UNSPACED}]\\p{P}*$`, "u");
const startsUnspaced = new RegExp(`^[${UNSPACED}]`, "u");

export const tokens = (text) => [...text.matchAll(TOKEN)].map((found) => ({ text: found[0], start: found.index, end: found.index + found[0].length }));

// Without the control characters and halves of surrogate pairs that the service refuses.
export const cleaned = (text) => text.toWellFormed().replace(/[^\P{Cc}\s]/gu, "");

const cache = new WeakMap();
// The character ranges of the words of a segment, in its text: [[start, end], ...].
export function ranges(segment) {
	let found = cache.get(segment);
	if (!found) cache.set(segment, (found = locate(segment.text, segment.words)));
	return found;
}

function locate(text, words) {
	let at = 0;
	return words.map(({ word }) => {
		const start = text.indexOf(word, at);
		if (start < 0) return [at, at];
		at = start + word.length;
		return [start, at];
	});
}

// The word at or before a character; -1 if there are no words.
export function wordAt(segment, offset) {
	const all = ranges(segment);
	let [low, high] = [0, all.length - 1];
	while (low < high) {
		const middle = (low + high + 1) >> 1;
		if (all[middle][0] <= offset) low = middle; else high = middle - 1;
	}
	return all.length ? low : -1;
}

// Pairs [old index, new index] of a longest common subsequence.
function common(a, b) {
	const pairs = [];
	let head = 0;
	while (head < a.length && head < b.length && a[head] === b[head]) pairs.push([head, head++]);
	let tail = 0;
	while (tail < Math.min(a.length, b.length) - head && a.at(-1 - tail) === b.at(-1 - tail)) tail += 1;
	pairs.push(...middle(a.slice(head, a.length - tail), b.slice(head, b.length - tail)).map(([i, j]) => [i + head, j + head]));
	for (let k = tail; k > 0; k -= 1) pairs.push([a.length - k, b.length - k]);
	return pairs;
}

function middle(a, b) {
	if (!a.length || !b.length || a.length * b.length > 4_000_000) return [];
	const width = b.length + 1;
	const best = new Uint16Array((a.length + 1) * width);
	for (let i = a.length - 1; i >= 0; i -= 1) {
		for (let j = b.length - 1; j >= 0; j -= 1) {
			const at = i * width + j;
			best[at] = a[i] === b[j] ? best[at + width + 1] + 1 : Math.max(best[at + width], best[at + 1]);
		}
	}
	const pairs = [];
	for (let i = 0, j = 0; i < a.length && j < b.length;) {
		if (a[i] === b[j]) pairs.push([i++, j++]);
		else if (best[(i + 1) * width + j] >= best[i * width + j + 1]) i += 1; else j += 1;
	}
	return pairs;
}

// The words of `text`, which replaces the text of a segment. Words that stay keep everything;
// the others get times between their neighbours, in proportion to their letters.
export function rewrite(segment, text) {
	const [old, fresh] = [tokens(segment.text), tokens(text)];
	const to = new Map(common(old.map((it) => it.text), fresh.map((it) => it.text)));
	const slots = new Array(fresh.length).fill(null);
	ranges(segment).forEach(([start, end], i) => {
		const inside = old.flatMap((token, n) => (token.start < end && token.end > start ? [n] : []));
		const first = to.get(inside[0]);
		if (first === undefined || inside.some((n, k) => to.get(n) !== first + k)) return;
		inside.forEach((_, k) => { slots[first + k] = k ? "rest" : segment.words[i]; });
	});
	return fill(segment, slots, fresh);
}

function fill(segment, slots, fresh) {
	const words = [];
	for (let i = 0; i < slots.length;) {
		if (slots[i]) {
			if (slots[i] !== "rest") words.push(slots[i]);
			i += 1;
			continue;
		}
		let end = i;
		while (end < slots.length && !slots[end]) end += 1;
		const next = slots.slice(end).find((it) => it && it !== "rest");
		words.push(...spread(fresh.slice(i, end), words.at(-1)?.end ?? segment.start, next?.start ?? segment.end));
		i = end;
	}
	return words;
}

// Words whose times nobody has aligned yet.
export const estimated = new WeakSet();

function spread(run, start, end) {
	const total = run.reduce((sum, it) => sum + it.text.length, 0);
	const long = Math.max(0, end - start) / total;
	let at = start;
	return run.map(({ text }) => {
		const word = { word: text, start: round(at), end: round(at + long * text.length), confidence: null, timing: "interpolated", doubtful: false };
		at = word.end;
		estimated.add(word);
		return word;
	});
}

const round = (seconds) => Math.round(seconds * 1000) / 1000;

// Two texts in one, with a space between them unless their script has none.
export const joined = (a, b) => (!a || !b || (endsUnspaced.test(a) && startsUnspaced.test(b)) ? a + b : `${a} ${b}`);

// Breaks a text into lines that are as even as possible, at most `width` characters if words allow.
export function breakLines(text, width, maxLines) {
	const words = text.trim().split(/\s+/u);
	const flat = words.join(" ");
	if (length(flat) <= width) return flat;
	for (let n = Math.ceil(length(flat) / width); ; n += 1) {
		const lines = even(words, n);
		if (lines.every((line) => length(line) <= width) || n >= words.length || n >= maxLines) return lines.join("\n");
	}
}

function even(words, n) {
	const lines = [];
	let rest = words;
	for (let left = n; left > 1 && rest.length > 1; left -= 1) {
		const target = length(rest.join(" ")) / left;
		let [at, size] = [1, length(rest[0])];
		while (at < rest.length - left + 1 && Math.abs(size + 1 + length(rest[at]) - target) <= Math.abs(size - target)) size += 1 + length(rest[at++]);
		lines.push(rest.slice(0, at).join(" "));
		rest = rest.slice(at);
	}
	return [...lines, rest.join(" ")];
}

export const length = (text) => [...text].length;
