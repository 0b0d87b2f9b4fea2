// The reading rules of subtitles, as docs/subtitles.md has them: what is wrong with a cue.

import { length, breakLines, joined } from "./words.js";
import { clock } from "./format.js";

const MS = 0.0015; // files have whole milliseconds

export function violations(segment, next, limits) {
	const lines = segment.text.split("\n");
	const widest = Math.max(...lines.map(length));
	const seconds = segment.end - segment.start;
	const speed = length(segment.text.replaceAll("\n", " ")) / Math.max(seconds, 0.001);
	const gap = next ? next.start - segment.end : Infinity;
	const found = [
		widest > limits.max_line_width && lines[0] && ["width", `${widest} characters in a line, ${limits.max_line_width} allowed`, `${widest}/${limits.max_line_width} wide`],
		lines.length > limits.max_line_count && ["lines", `${lines.length} lines, ${limits.max_line_count} allowed`, `${lines.length} lines`],
		speed > limits.max_cps + 0.05 && ["speed", `${speed.toFixed(1)} characters per second, ${limits.max_cps} allowed`, `${speed.toFixed(0)} char/s`],
		seconds > limits.max_cue_duration + MS && ["duration", `${seconds.toFixed(1)} s, at most ${limits.max_cue_duration} s allowed`, `${seconds.toFixed(1)} s long`],
		seconds < limits.min_cue_duration - MS && ["duration", `${seconds.toFixed(2)} s, at least ${limits.min_cue_duration} s needed`, `${seconds.toFixed(2)} s short`],
		gap < -MS && ["gap", `overlaps the next cue by ${(-gap).toFixed(2)} s`, "overlap"],
		gap >= -MS && gap < limits.min_gap - MS && ["gap", `${Math.max(0, gap).toFixed(3)} s before the next cue, ${limits.min_gap} s needed`, "no gap"],
	];
	return found.filter(Boolean).map(([rule, text, short]) => ({ rule, text, short }));
}

const TIME = /(\d+):(\d\d):(\d\d)[,.](\d{3})\s+-->\s+(\d+):(\d\d):(\d\d)[,.](\d{3})/;

// The cues of an SRT file.
export function parseSrt(text) {
	return text.replaceAll("\r\n", "\n").split(/\n\n+/).flatMap((block) => {
		const lines = block.split("\n");
		const at = lines.findIndex((line) => TIME.test(line));
		if (at < 0) return [];
		const [, ...n] = TIME.exec(lines[at]).map(Number);
		const seconds = (i) => n[i] * 3600 + n[i + 1] * 60 + n[i + 2] + n[i + 3] / 1000;
		return [{ start: seconds(0), end: seconds(4), lines: lines.slice(at + 1) }];
	});
}

// Turns segments into cues as the server cut them. Both have the same words in the same order.
export function toCues(segments, cues) {
	const words = segments.flatMap((segment) => segment.words.map((word) => ({ word, segment })));
	const out = [];
	let at = 0;
	for (const cue of cues) {
		const found = take(words, at, cue.lines);
		if (!found.words.length) continue;
		at = found.at;
		const { segment } = found.words[0];
		const inside = found.words.map(({ word }) => clamp(word, cue));
		out.push({ ...segment, start: cue.start, end: cue.end, text: found.text, words: inside, line: true, doubts: inside.some((it) => it.doubtful) ? segment.doubts : [] });
	}
	return at === words.length ? out : null;
}

const clamp = (word, { start, end }) => ({ ...word, start: Math.min(end, Math.max(start, word.start)), end: Math.min(end, Math.max(start, word.end)) });

// The words of the lines of one cue. What is no word, such as a speaker's name, is left out.
function take(words, from, lines) {
	let at = from;
	const kept = lines.map((line) => {
		const first = at;
		let pos = 0;
		while (at < words.length) {
			const found = line.indexOf(words[at].word.word, pos);
			if (found < 0 || (pos && line.slice(pos, found).trim())) break;
			pos = found + words[at].word.word.length;
			at += 1;
		}
		return words.slice(first, at).reduce((text, { word }) => joined(text, word.word), "");
	});
	return { words: words.slice(from, at), at, text: kept.filter(Boolean).join("\n") };
}

// The way back: cues become sentences again.
export function toSentences(segments) {
	const out = [];
	for (const cue of segments) {
		const last = out.at(-1);
		const text = cue.text.replaceAll("\n", " ");
		const goesOn = last && last.speaker === cue.speaker && cue.start - last.end < 1.5 && last.end - last.start < 30 && !/[.!?。？！…]["'”’»)]*$/u.test(last.text);
		if (goesOn) Object.assign(last, { text: joined(last.text, text), words: [...last.words, ...cue.words], end: cue.end, doubts: [...new Set([...last.doubts, ...cue.doubts])] });
		else out.push({ ...cue, text, line: false });
	}
	return out;
}

export const rewrap = (segment, limits) => ({ ...segment, text: breakLines(segment.text.replaceAll("\n", " "), limits.max_line_width, limits.max_line_count) });
export const spanText = ({ start, end }) => `${clock(start, 1)}–${clock(end, 1)}`;
