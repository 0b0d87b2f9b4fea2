// An AudioWorklet: what the microphone hears, as 16-bit PCM at 24 kHz, in pieces of 0.1 s.

const RATE = 24_000;

class Pcm extends AudioWorkletProcessor {
	constructor() {
		super();
		this.step = sampleRate / RATE;
		this.at = 0;
		this.last = 0;
		this.piece = new Int16Array(RATE / 10);
		this.n = 0;
	}

	process([[channel]]) {
		if (!channel) return true;
		// `at` is a position between samples; -1 is the last sample of the block before.
		for (; this.at < channel.length; this.at += this.step) {
			const i = Math.floor(this.at);
			const before = i > 0 ? channel[i - 1] : this.last;
			this.#put(before + (channel[i] - before) * (this.at - i));
		}
		this.at -= channel.length;
		this.last = channel[channel.length - 1];
		return true;
	}

	#put(value) {
		this.piece[this.n++] = Math.max(-1, Math.min(1, value)) * 32_767;
		if (this.n < this.piece.length) return;
		this.port.postMessage(this.piece.buffer, [this.piece.buffer]);
		this.piece = new Int16Array(RATE / 10);
		this.n = 0;
	}
}

registerProcessor("pcm", Pcm);
