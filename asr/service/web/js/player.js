// The player: an <audio> element, its waveform, a spectrogram on request, and its controls.

import WaveSurfer from "../vendor/wavesurfer.js";
import { el, button, choice, icon, toast } from "./dom.js";
import { clock, spoken } from "./format.js";
import { getJson, jobPath, MediaToken, whenPrepared } from "./api.js";
import { pause } from "./sse.js";
import { setting, setSetting, position, setPosition } from "./store.js";

const SPEEDS = [0.5, 0.75, 0.9, 1, 1.1, 1.25, 1.5, 1.75, 2, 2.5, 3];
const SKIP = 5;

export class Player extends EventTarget {
	#stopAt = Infinity;
	#frame = 0;
	#recovering = false;

	constructor(job) {
		super();
		this.job = job;
		this.media = new MediaToken(job.id);
		this.closing = new AbortController();
		this.duration = job.recording?.seconds ?? job.progress.total ?? 0;
		this.audio = el("audio", { preload: "metadata" });
		this.audio.preservesPitch = true;
		this.node = this.#build();
		this.#listen();
		this.seconds = Math.min(position(job.id), Math.max(0, this.duration - 0.1));
		this.wave.append(el("p", { class: "muted" }, "Preparing the recording…"));
		this.#show();
	}

	async open() {
		try {
			const rate = this.duration > 18_000 ? 10 : 20;
			const peaks = await whenPrepared(() => getJson(jobPath(this.job.id, `/peaks?points_per_second=${rate}`)), this.closing.signal);
			this.#drawWave(peaks);
			await this.#source().catch(() => this.#recover());
		} catch (error) {
			if (error.status === 401 || this.closing.signal.aborted) return;
			const gone = error.code === "recording_not_kept";
			this.#unavailable(gone ? "The recording was not kept, so it cannot be played." : `The recording cannot be played: ${error.message}`);
		}
		this.#show();
	}

	async #source() {
		const { audio } = this;
		audio.src = await this.media.url("/audio");
		audio.currentTime = this.seconds;
		await new Promise((resolve, reject) => {
			audio.onloadedmetadata = resolve;
			audio.onerror = () => reject(new Error(audio.error?.message || "it cannot be read"));
		});
	}

	#unavailable(text) {
		this.isAvailable = false;
		this.node.classList.add("silent");
		this.wave.replaceChildren(el("p", { class: "muted" }, text));
		for (const it of this.node.querySelectorAll(".controls button, .controls select")) it.disabled = true;
	}

	#build() {
		this.wave = el("div", { class: "wave", "aria-hidden": "true" });
		this.spectrum = el("div", { class: "spectrum", hidden: true });
		this.cursor = el("i", { class: "cursor" });
		this.playButton = button("Play", () => this.toggle(), { icon: "play", bare: true, class: "play", title: "Play or pause (space)" });
		this.now = el("span", { class: "now", "aria-hidden": "true" });
		this.total = el("span", { class: "muted", "aria-hidden": "true" }, clock(this.duration));
		this.slider = el("input", { type: "range", class: "seek", min: 0, max: Math.max(1, this.duration), step: 0.1, "aria-label": "Position in the recording" });
		this.slider.addEventListener("input", () => this.seek(Number(this.slider.value)));
		this.speed = choice(SPEEDS.map((it) => [it, `${it}×`]), setting("speed", 1), { "aria-label": "Speed", title: "Speed ([ and ])" });
		this.speed.addEventListener("change", () => this.setSpeed(Number(this.speed.value)));
		this.spectrumButton = button("Spectrogram", () => this.toggleSpectrum(), { icon: "spectrum", bare: true, "aria-pressed": "false", class: "wide-only" });
		const controls = el("div", { class: "controls" },
			button("Back 5 seconds", () => this.skip(-SKIP), { icon: "back", bare: true, title: "Back 5 seconds (←)" }),
			this.playButton,
			button("Forward 5 seconds", () => this.skip(SKIP), { icon: "forward", bare: true, title: "Forward 5 seconds (→)" }),
			el("span", { class: "times" }, this.now, " / ", this.total), this.slider, this.speed,
			button("Zoom out", () => this.zoom(0.5), { bare: true, icon: "minus", class: "wide-only" }),
			button("Zoom in", () => this.zoom(2), { bare: true, icon: "plus", class: "wide-only" }), this.spectrumButton);
		return el("section", { class: "player", "aria-label": "Player" }, this.wave, this.spectrum, controls, this.audio);
	}

	#listen() {
		const { audio } = this;
		for (const name of ["play", "pause", "seeked", "ended"]) audio.addEventListener(name, () => this.#changed());
		audio.addEventListener("timeupdate", () => { if (!this.#frame || document.hidden) this.#changed(); });
		audio.addEventListener("durationchange", () => {
			if (Number.isFinite(audio.duration)) this.duration ||= audio.duration;
			this.#show();
		});
		audio.addEventListener("error", () => this.#recover());
		this.spectrum.addEventListener("click", ({ clientX }) => {
			const { left, width } = this.spectrum.getBoundingClientRect();
			if (this.drawn) this.seek(this.drawn.start + ((clientX - left) / width) * (this.drawn.end - this.drawn.start));
		});
	}

	// The token has expired, or the service is away: tries until it is back.
	async #recover() {
		const { signal } = this.closing;
		if (this.#recovering || this.isAvailable === false || signal.aborted) return;
		this.#recovering = true;
		let found = false;
		for (let [wait, failures] = [0, 0]; !found && failures < 3 && !signal.aborted; wait = Math.min(2 * wait + 500, 10_000)) {
			await pause(wait, signal);
			try {
				this.media.until = 0;
				await this.media.get();
				failures += 1;
				await this.#source();
				found = true;
			} catch (error) { if (error.status && error.status < 500) failures = 3; }
		}
		this.#recovering = false;
		if (found && this.wantsToPlay) this.play();
		if (!found && !signal.aborted) toast("The recording cannot be played at the moment.", { kind: "error" });
	}

	#drawWave(peaks) {
		const scale = 2 ** (peaks.bits - 1);
		const data = Float32Array.from(peaks.data, (value) => value / scale);
		const [lows, highs] = [data.filter((_, i) => i % 2 === 0), data.filter((_, i) => i % 2)];
		this.duration ||= (peaks.length * peaks.samples_per_pixel) / peaks.sample_rate;
		const width = this.wave.clientWidth || 800;
		this.pxPerSecond = Math.max(width / this.duration, this.duration > 90 ? 40 : 0);
		const tall = matchMedia("(max-width: 720px), (max-height: 560px)").matches ? 40 : 64;
		this.wave.replaceChildren();
		this.surfer = WaveSurfer.create({
			container: this.wave, media: this.audio, peaks: [highs.map((it, i) => Math.max(it, -lows[i]))], duration: this.duration, height: tall, normalize: true,
			minPxPerSec: this.pxPerSecond, barWidth: 2, barGap: 1, barRadius: 2, cursorWidth: 2, hideScrollbar: true, autoCenter: false, ...colours(),
		});
		this.surfer.on("interaction", () => this.#changed());
		this.surfer.on("scroll", () => this.#spectrumLater());
		const repaint = () => this.surfer.setOptions(colours());
		const { signal } = this.closing;
		addEventListener("asr-theme", repaint, { signal });
		matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint, { signal });
		this.surfer.setScrollTime(Math.max(0, this.seconds - 3));
	}

	zoom(factor) {
		if (!this.surfer) return;
		const least = (this.wave.clientWidth || 800) / this.duration;
		this.pxPerSecond = Math.min(400, Math.max(least, this.pxPerSecond * factor));
		this.surfer.zoom(this.pxPerSecond);
		this.surfer.setScrollTime(Math.max(0, this.seconds - this.wave.clientWidth / this.pxPerSecond / 2));
		this.#spectrumLater();
	}

	toggleSpectrum() {
		const on = this.spectrum.hidden;
		this.spectrum.hidden = !on;
		this.spectrumButton.setAttribute("aria-pressed", String(on));
		if (on) this.#drawSpectrum();
		this.dispatchEvent(new Event("resize"));
	}

	#spectrumLater() {
		clearTimeout(this.spectrumTimer);
		if (!this.spectrum.hidden) this.spectrumTimer = setTimeout(() => this.#drawSpectrum(), 250);
	}

	// The same span as the visible waveform, at most the two minutes that the server draws.
	async #drawSpectrum() {
		if (!this.surfer) return;
		const width = this.wave.clientWidth;
		const start = Math.max(0, this.surfer.getScroll() / this.pxPerSecond);
		const end = Math.min(this.duration, start + width / this.pxPerSecond);
		this.drawn = null;
		if (end - start > 120) return this.spectrum.replaceChildren(el("p", { class: "muted" }, "Zoom in to two minutes or less to see the spectrogram."));
		if (!this.spectrum.firstChild) this.spectrum.append(el("p", { class: "muted" }, "Drawing…"));
		try {
			const query = { start: start.toFixed(3), end: end.toFixed(3), width: Math.min(2000, Math.round(width)), height: 128 };
			const image = el("img", { src: await this.media.url("/spectrogram.png", query), alt: `Mel spectrogram from ${clock(start)} to ${clock(end)}` });
			await image.decode();
			this.drawn = { start, end };
			this.spectrum.replaceChildren(image, this.cursor);
			this.#showCursor();
		} catch {
			this.spectrum.replaceChildren(el("p", { class: "muted" }, "The spectrogram cannot be drawn at the moment."));
		}
	}

	get isPlaying() { return !this.audio.paused; }

	async play() {
		this.wantsToPlay = true;
		try { await this.audio.play(); } catch (error) {
			if (error.name === "NotSupportedError") await this.#recover();
		}
	}

	pause() {
		this.wantsToPlay = false;
		this.audio.pause();
	}

	toggle() {
		this.#stopAt = Infinity;
		return this.isPlaying ? this.pause() : this.play();
	}

	playSpan(start, end) {
		this.seek(start);
		this.#stopAt = end;
		this.play();
	}

	seek(seconds, seeked = true) {
		this.#stopAt = Infinity;
		this.seconds = Math.min(Math.max(0, seconds), Math.max(0, this.duration - 0.05));
		this.audio.currentTime = this.seconds;
		this.#show();
		this.dispatchEvent(new CustomEvent("time", { detail: { seeked } }));
	}

	#showCursor() {
		if (!this.drawn) return;
		const part = (this.seconds - this.drawn.start) / (this.drawn.end - this.drawn.start);
		this.cursor.style.left = `${100 * part}%`;
	}

	playFrom(seconds) {
		this.seek(seconds);
		this.play();
	}

	skip(seconds) { this.seek(this.seconds + seconds); }

	setSpeed(value) {
		this.speed.value = value;
		this.audio.playbackRate = value;
		setSetting("speed", value);
	}

	faster(steps) {
		const at = SPEEDS.indexOf(Number(this.speed.value)) + steps;
		if (SPEEDS[at]) this.setSpeed(SPEEDS[at]);
	}

	#changed() {
		if (this.audio.readyState) this.seconds = this.audio.currentTime;
		this.#stopAtEnd();
		if (this.isPlaying && !this.#frame) this.#tick();
		this.#show();
		this.dispatchEvent(new CustomEvent("time", { detail: {} }));
		setPosition(this.job.id, this.seconds);
	}

	#stopAtEnd() {
		if (!this.isPlaying || this.seconds < this.#stopAt) return false;
		this.#stopAt = Infinity;
		this.pause();
		return true;
	}

	#tick() {
		this.audio.playbackRate = Number(this.speed.value);
		const step = () => {
			this.#frame = 0;
			if (!this.isPlaying) return;
			this.seconds = this.audio.currentTime;
			if (this.#stopAtEnd()) return;
			this.#show();
			this.dispatchEvent(new CustomEvent("time", { detail: {} }));
			this.#frame = requestAnimationFrame(step);
		};
		this.#frame = requestAnimationFrame(step);
	}

	#show() {
		this.#showCursor();
		const text = clock(this.seconds);
		if (this.now.textContent !== text) {
			this.now.textContent = text;
			this.slider.setAttribute("aria-valuetext", `${spoken(this.seconds)} of ${spoken(this.duration)}`);
			this.slider.max = Math.max(1, this.duration);
			this.slider.value = this.seconds;
			this.slider.style.setProperty("--done", `${(100 * this.seconds) / Math.max(1, this.duration)}%`);
			this.total.textContent = clock(this.duration);
		}
		const playing = this.isPlaying;
		if (this.shown === playing) return;
		this.shown = playing;
		this.playButton.replaceChildren(icon(playing ? "pause" : "play"));
		this.playButton.setAttribute("aria-label", playing ? "Pause" : "Play");
	}

	close() {
		this.closing.abort();
		setPosition(this.job.id, this.seconds);
		clearTimeout(this.spectrumTimer);
		this.audio.pause();
		this.surfer?.destroy();
		this.audio.removeAttribute("src");
		this.audio.load();
	}
}

function colours() {
	const style = getComputedStyle(document.documentElement);
	const probe = el("i", { class: "hidden" });
	document.body.append(probe);
	const colour = (name) => { probe.style.color = style.getPropertyValue(name); return getComputedStyle(probe).color; };
	const found = { waveColor: colour("--wave"), progressColor: colour("--accent"), cursorColor: colour("--text") };
	probe.remove();
	return found;
}
