// Server-sent events through fetch(), because EventSource cannot send the key.
// After a lost connection it goes on behind the last event that it has seen.

import { request, jobPath } from "./api.js";

export async function* events(id, { signal, onlost }) {
	let [last, wait] = ["", 500];
	while (!signal.aborted) {
		try {
			const headers = { Accept: "text/event-stream", ...(last && { "Last-Event-ID": last }) };
			const response = await request(jobPath(id, "/events"), { headers, signal });
			if (response.status === 204) return;
			onlost(false);
			for await (const event of parse(response.body)) {
				wait = 500;
				if (event.id) last = event.id;
				yield { name: event.name, data: JSON.parse(event.data) };
				if (event.name === "done" || event.name === "error") return;
			}
		} catch (error) {
			if (signal.aborted) return;
			if (error.status && error.status < 500 && error.status !== 429) throw error;
		}
		if (signal.aborted) return;
		onlost(true);
		await pause(wait, signal);
		wait = Math.min(wait * 2, 15_000);
	}
}

async function* parse(body) {
	let rest = "";
	const reader = body.pipeThrough(new TextDecoderStream()).getReader();
	for (;;) {
		const { value, done } = await reader.read();
		if (done) return;
		const blocks = (rest + value.replaceAll("\r\n", "\n")).split("\n\n");
		rest = blocks.pop();
		for (const block of blocks) {
			const event = read(block);
			if (event.data) yield event;
		}
	}
}

function read(block) {
	const event = { name: "message", id: "", data: "" };
	for (const line of block.split("\n")) {
		const colon = line.indexOf(":");
		const [name, value] = [line.slice(0, colon), line.slice(colon + 1).replace(/^ /, "")];
		if (name === "event") event.name = value;
		if (name === "id") event.id = value;
		if (name === "data") event.data += (event.data && "\n") + value;
	}
	return event;
}

// Waits, but not longer than until the network is back.
export function pause(milliseconds, signal) {
	return new Promise((resolve) => {
		const done = () => { clearTimeout(timer); removeEventListener("online", done); signal?.removeEventListener("abort", done); resolve(); };
		const timer = setTimeout(done, milliseconds);
		addEventListener("online", done);
		signal?.addEventListener("abort", done);
	});
}
