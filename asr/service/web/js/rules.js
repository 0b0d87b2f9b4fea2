// The reading rules of subtitles, as docs/subtitles.md has them: what is wrong with a cue.

import { length, breakLines, joined, rewrite } from "./words.js";
import { merge } from "./model.js";
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

// Turns segments into cues as the server cut them. Both have the words of a channel in the same order;
// cues of several channels may overlap. `speakers` has the names in the labels of the cues.
export function toCues(segments, cues, speakers = {}) {
	const whole = segments.map((it) => (it.words.length ? it : { ...it, words: rewrite(it, it.text) })); // some have no words yet
	const channels = Map.groupBy(whole, ({ channel }) => channel ?? null);
	const streams = [...channels.values()].map((own) => ({ at: 0, words: own.flatMap((segment) => segment.words.map((word) => ({ word, segment }))) }));
	const out = [];
	for (const cue of cues) {
		const all = streams.map((stream) => ({ stream, ...take(stream, cue.lines, speakers) })).filter((it) => it.words.length);
		const late = (it) => Math.abs(it.words[0].word.start - cue.start) + (it.isWhole ? 0 : 1e6);
		const found = all.sort((a, b) => late(a) - late(b))[0];
		if (!found) continue;
		found.stream.at = found.at;
		const { segment } = found.words[0];
		const inside = found.words.map(({ word }) => clamp(word, cue));
		out.push({ ...segment, start: cue.start, end: cue.end, text: found.text, words: inside, line: true, doubts: inside.some((it) => it.doubtful) ? segment.doubts : [] });
	}
	return streams.every((it) => it.at === it.words.length) ? out : null;
}

const clamp = (word, { start, end }) => ({ ...word, start: Math.min(end, Math.max(start, word.start)), end: Math.min(end, Math.max(start, word.end)) });

// The next words of a channel that are the lines of one cue. The name of the speaker is left out.
function take({ words, at: from }, lines, speakers) {
	const speaker = words[from]?.segment.speaker;
	const label = speaker && `${(speakers[speaker] ?? speaker).split(/\s+/u).filter(Boolean).join(" ")}:`;
	const plain = label && lines[0].startsWith(label) ? [lines[0].slice(label.length), ...lines.slice(1)] : lines;
	let [at, isWhole] = [from, true];
	const kept = plain.map((line) => {
		const first = at;
		let rest = line.trim();
		while (rest && at < words.length && rest.startsWith(words[at].word.word.trim())) rest = rest.slice(words[at++].word.word.trim().length).trim();
		if (rest) isWhole = false;
		return words.slice(first, at).reduce((text, { word }) => joined(text, word.word), "");
	});
	return { words: words.slice(from, at), at, isWhole, text: kept.filter(Boolean).join("\n") };
}

// The way back: cues become sentences again.
export function toSentences(segments) {
	const out = [];
	for (const cue of segments) {
		const last = out.at(-1);
		const text = cue.text.replaceAll("\n", " ");
		const goesOn = last && last.speaker === cue.speaker && cue.start - last.end < 1.5 && last.end - last.start < 30 && !/[.!?。？！…]["'”’»)]*$/u.test(last.text);
		if (goesOn) out[out.length - 1] = merge(last, { ...cue, text });
		else out.push({ ...cue, text, line: false });
	}
	return out;
}

export const rewrap = (segment, limits) => ({ ...segment, text: breakLines(segment.text.replaceAll("\n", " "), limits.max_line_width, limits.max_line_count) });
export const spanText = ({ start, end }) => `${clock(start, 1)}–${clock(end, 1)}`;
