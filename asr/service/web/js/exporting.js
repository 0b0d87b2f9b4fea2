// Downloads: the server makes the files from the saved transcript. Clips, links and copies.

import { el, ask, field, choice, button, saveAs, copy, toast } from "./dom.js";
import { clock, parseClock } from "./format.js";
import { request, jobPath, explain, base } from "./api.js";
import { changedRules, rules, setRules, RULES } from "./store.js";

const FORMATS = [["srt", "Subtitles (SRT)"], ["vtt", "Subtitles (WebVTT)"], ["txt", "Plain text"], ["json", "JSON with word times"], ["tsv", "Table (TSV)"]];

function nameOf(response, fallback) {
	const header = response.headers.get("content-disposition") ?? "";
	const found = /filename\*=UTF-8''([^;]+)/i.exec(header);
	try { return found ? decodeURIComponent(found[1]) : fallback; } catch { return fallback; }
}

export class Exporter {
	constructor(job, transcript, saver, player, editor) { Object.assign(this, { job, transcript, saver, player, editor }); }

	items() {
		return [
			...FORMATS.map(([format, label]) => ({ label, icon: "download", run: () => this.download(format) })),
			null,
			{ label: "Copy the text", icon: "file", run: () => this.copyText() },
			{ label: "Link to this moment", icon: "link", run: () => this.copyLink(this.player.seconds) },
			{ label: "Download a clip…", icon: "clip", run: () => this.clip() },
		];
	}

	async #saved() {
		this.editor.commit();
		if (!(await this.saver.now())) throw new Error("The changes are not saved yet, so the file would lack them.");
		await this.saver.refresh();
	}

	#rules(format) {
		return new URLSearchParams([...changedRules(), ...(format === "srt" ? [["speaker_labels", "true"]] : [])]);
	}

	async download(format) {
		try {
			await this.#saved();
			const query = format === "srt" || format === "vtt" ? this.#rules(format) : "";
			const response = await request(jobPath(this.job.id, `/transcript.${format}?${query}`));
			saveAs(await response.blob(), nameOf(response, `transcript.${format}`));
			toast(`${format.toUpperCase()} downloaded`);
		} catch (error) {
			if (error.status) explain(error, "The download failed"); else toast(error.message, { kind: "error" });
		}
	}

	// The server's cues for the page's reading rules, as SRT.
	async cues() {
		await this.#saved();
		return (await request(jobPath(this.job.id, `/transcript.srt?${this.#rules("srt")}`))).text();
	}

	copyText() {
		let speaker = null;
		const lines = this.transcript.segments.map((it) => {
			const label = it.speaker && it.speaker !== speaker ? `${this.transcript.nameOf(it.speaker)}: ` : "";
			speaker = it.speaker;
			return label + it.text.replaceAll("\n", " ");
		});
		copy(lines.join("\n"), "Text");
	}

	copyLink(seconds) { copy(`${base.href}#job=${this.job.id}&t=${seconds.toFixed(1)}`, `Link to ${clock(seconds)}`); }

	async clip(start = this.player.seconds, end = Math.min(this.player.duration, start + 10)) {
		const [from, to] = [start, end].map((it) => el("input", { value: clock(it, 1), class: "short", inputmode: "decimal", autocomplete: "off" }));
		const format = choice([["mp3", "MP3"], ["wav", "WAV"], ["flac", "FLAC"], ["ogg", "Ogg"]], "mp3");
		const error = el("p", { class: "error", role: "alert" });
		const span = () => {
			const [a, b] = [parseClock(from.value), parseClock(to.value)];
			const problem = a === null || b === null ? "Write times as 1:02:03.5." : b <= a ? "The clip must end after it begins." : b - a > 600 ? "A clip may have 10 minutes." : "";
			error.textContent = problem;
			return problem ? null : [a, b];
		};
		const listen = button("Listen", () => { const it = span(); if (it) this.player.playSpan(...it); }, { icon: "play" });
		await ask({
			title: "Clip",
			body: [el("div", { class: "fields" }, field("From", from), field("To", to), field("Format", format)), listen, error],
			actions: [{ label: "Cancel", value: null }, { label: "Download", value: "get", kind: "primary" }],
			submit: async () => { const it = span(); return it ? this.#clip(...it, format.value, error) : false; },
		});
	}

	async #clip(start, end, format, note) {
		try {
			const query = new URLSearchParams({ start: start.toFixed(3), end: end.toFixed(3), format });
			const response = await request(jobPath(this.job.id, `/audio?${query}`));
			saveAs(await response.blob(), nameOf(response, `clip.${format}`));
			toast("Clip downloaded");
			return true;
		} catch (error) {
			note.textContent = error.status ? error.message : "The service cannot be reached."; // a message would be behind the dialog
			return false;
		}
	}
}

const LABELS = { max_line_width: ["Characters per line", 10, 500, 1], max_line_count: ["Lines per subtitle", 1, 10, 1], max_cps: ["Characters per second", 1, 1000, 0.5], min_cue_duration: ["Shortest time (s)", 0, 10, 0.001], max_cue_duration: ["Longest time (s)", 0.5, 60, 0.1], min_gap: ["Gap between subtitles (s)", 0, 1, 0.001] };

// The fields of the reading rules. read() returns the values, or null if one is wrong.
export function ruleFields() {
	const now = rules();
	const inputs = Object.entries(LABELS).map(([name, [label, min, max, step]]) => [name, label, el("input", { type: "number", min, max, step, value: now[name], class: "short", required: true })]);
	const node = el("div", { class: "fields" }, inputs.map(([, label, input]) => field(label, input)));
	const read = () => {
		const wrong = inputs.find(([, , input]) => !input.checkValidity());
		if (wrong) { wrong[2].reportValidity(); return null; }
		return Object.fromEntries(inputs.map(([name, , input]) => [name, Number(input.value)]));
	};
	const reset = () => { for (const [name, , input] of inputs) input.value = RULES[name]; };
	return { node, read, reset };
}

export async function askRules() {
	const { node, read, reset } = ruleFields();
	const done = await ask({
		title: "Reading rules of subtitles",
		body: [el("p", { class: "muted" }, "They hold for the marks in the subtitle view and for downloads of subtitles."), node, button("Usual values", reset, { class: "quiet" })],
		actions: [{ label: "Cancel", value: null }, { label: "Save", value: true, kind: "primary" }],
		submit: () => { const value = read(); if (value) setRules(value); return Boolean(value); },
	});
	return done === true;
}
