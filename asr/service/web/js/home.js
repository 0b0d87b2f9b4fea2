// The first page: add recordings, and find the earlier ones.

import { el, button, field, choice, toast, say } from "./dom.js";
import { languageName } from "./format.js";
import { address, getJson } from "./api.js";
import { options, setOptions, setRules, changedRules } from "./store.js";
import { Uploads } from "./uploads.js";
import { Recorder } from "./recorder.js";
import { JobList } from "./joblist.js";
import { ruleFields } from "./exporting.js";

let uploads = null; // they go on while another view is shown

export class HomePage {
	constructor(main) {
		this.main = main;
		this.leaving = new AbortController();
	}

	open() {
		this.jobs = new JobList(this.leaving.signal);
		uploads ??= new Uploads((job) => dispatchEvent(new CustomEvent("asr-job", { detail: job })));
		addEventListener("asr-job", ({ detail }) => { say(`${detail.name ?? "The recording"} is being transcribed.`); this.jobs.load(); }, { signal: this.leaving.signal });
		this.recorder = new Recorder((file) => uploads.add([file]));
		this.options = el("details", { class: "options" }, el("summary", {}, "Options"), el("p", { class: "muted" }, "Loading…"));
		this.main.replaceChildren(el("div", { class: "home" }, el("h1", { class: "hidden" }, "Transcripts"), this.#drop(), this.recorder.node, uploads.node, this.jobs.node));
		this.#dragging();
		document.title = "Transcripts";
		this.jobs.load();
		this.#loadOptions();
	}

	close() {
		this.leaving.abort();
		if (this.recorder.stream) this.recorder.stop(true);
	}

	#drop() {
		this.input = el("input", { type: "file", multiple: true, accept: "audio/*,video/*,.mkv,.opus,.amr,.wma,.flac", class: "hidden", tabindex: "-1", "aria-label": "Files" });
		this.input.addEventListener("change", () => { uploads.add(this.input.files); this.input.value = ""; });
		const buttons = el("div", { class: "buttons" }, button("Choose files", () => this.input.click(), { icon: "plus", class: "primary" }), button("Record", () => this.recorder.start(), { icon: "mic" }));
		return el("section", { class: "drop", "aria-label": "Add recordings" }, el("img", { src: address("page/icon.svg"), alt: "", width: 48, height: 48 }), el("h2", {}, "Drop audio or video here"), el("p", { class: "muted" }, "Several files at once, of any length. An interrupted upload continues where it stopped."), buttons, this.input, this.options);
	}

	#dragging() {
		const { signal } = this.leaving;
		let depth = 0;
		const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
		const mark = (step) => { depth = Math.max(0, depth + step); this.main.classList.toggle("dropping", depth > 0); };
		addEventListener("dragenter", (event) => { if (hasFiles(event)) mark(1); }, { signal });
		addEventListener("dragleave", (event) => { if (hasFiles(event)) mark(-1); }, { signal });
		addEventListener("dragover", (event) => { if (hasFiles(event)) event.preventDefault(); }, { signal });
		addEventListener("drop", (event) => {
			if (!hasFiles(event)) return;
			event.preventDefault();
			depth = 0;
			mark(0);
			const files = [...event.dataTransfer.items].filter((it) => it.webkitGetAsEntry?.()?.isDirectory !== true).map((it) => it.getAsFile()).filter(Boolean);
			if (files.length < event.dataTransfer.items.length) toast("Folders are left out. Drop the files in them.");
			uploads.add(files);
		}, { signal });
		signal.addEventListener("abort", () => this.main.classList.remove("dropping"));
	}

	async #loadOptions() {
		try {
			const { data: [model] } = await getJson("v1/models", { signal: this.leaving.signal });
			this.options.replaceChildren(...this.#optionFields(model.capabilities ?? {}));
			this.#summarise();
		} catch (error) {
			if (error.name !== "AbortError") this.options.lastChild.textContent = "The options are not available at the moment. The usual ones hold.";
		}
	}

	#optionFields(able) {
		const now = options();
		const languages = able.languages ?? ["en"];
		if (now.language && !languages.includes(now.language)) now.language = "";
		const first = able.detects_language ? "Recognise it" : `${languageName(languages[0])} (usual)`;
		const rest = able.detects_language ? languages : languages.slice(1);
		const names = rest.map((it) => [it, languageName(it)]).sort((a, b) => a[1].localeCompare(b[1]));
		const language = choice([["", first], ...names], now.language);
		const channels = choice([["mix", "Mix all channels"], ["split", "One speaker in each channel"]], now.channels);
		const vocabulary = el("textarea", { rows: 3, value: now.vocabulary, dir: "auto" });
		const prompt = el("input", { value: now.prompt, dir: "auto", maxlength: 2000 });
		now.speakers = able.speakers ? now.speakers || "auto" : "";
		setOptions(now);
		const people = choice([["auto", "Find out how many"], ["off", "Do not tell them apart"], ...[2, 3, 4, 5, 6].map((n) => [n, n])], now.speakers || "auto");
		const rules = ruleFields();
		const save = () => {
			const chosen = rules.node.querySelector(":invalid") ? null : rules.read();
			setOptions({ language: language.value, channels: channels.value, vocabulary: vocabulary.value, prompt: prompt.value, speakers: able.speakers ? people.value : "" });
			if (chosen) setRules(chosen);
			this.#summarise();
		};
		const body = el("div", { class: "option-grid" },
			field("Language", language), able.channels !== false && field("Channels", channels), able.speakers && field("Speakers", people),
			able.keywords && field("Vocabulary", vocabulary, "Names and terms, one a line"), able.prompt && field("Context", prompt, "What the recording is about"),
			el("fieldset", {}, el("legend", {}, "Subtitles"), rules.node, button("Usual values", () => { rules.reset(); save(); }, { class: "quiet" })));
		body.addEventListener("change", save);
		this.chosen = () => [language.selectedOptions[0].text, channels.value === "split" && "one speaker in each channel", able.keywords && vocabulary.value.trim() && "with vocabulary", changedRules().length > 0 && "own subtitle rules"].filter(Boolean).join(", ");
		this.summary = el("span", { class: "muted" });
		return [el("summary", {}, el("span", {}, "Options"), this.summary), body];
	}

	#summarise() { this.summary.textContent = this.chosen(); }
}
