// Requests to the service, with the key of this tab. The page may live under a prefix.

import { el, ask, field, toast } from "./dom.js";
import { pause } from "./sse.js";

const KEY = "asr-key";
export const base = new URL(".", document.baseURI);
export const address = (path) => new URL(path, base).href;
let spare = ""; // the key, if the browser stores nothing
export const key = () => { try { return sessionStorage.getItem(KEY) ?? spare; } catch { return spare; } };
function setKey(value) {
	spare = "";
	try { if (value) sessionStorage.setItem(KEY, value); else sessionStorage.removeItem(KEY); } catch { spare = value; }
}
export const authorization = () => (key() ? { Authorization: `Bearer ${key()}` } : {});

export class Failure extends Error {
	constructor(status, message, code, etag) {
		super(message);
		Object.assign(this, { status, code, etag });
	}
}

async function failureOf(response) {
	const body = await response.json().catch(() => ({}));
	const error = body.error ?? {};
	const message = error.message ?? `The service answered ${response.status}.`;
	return new Failure(response.status, message, error.code, response.headers.get("etag"));
}

// fetch() that adds the key, asks for it at 401 (unless `quiet`), and throws a Failure for other errors.
export async function request(path, options = {}) {
	const asked = key();
	const headers = { ...options.headers, ...authorization() };
	const response = await fetch(address(path), { ...options, headers, cache: "no-store" });
	if (response.ok) return response;
	const failure = await failureOf(response);
	if (response.status !== 401 || options.quiet) throw failure;
	if (key() === asked && !(await askForKey(asked && failure.message))) throw failure;
	return request(path, options);
}

export const getJson = async (path, options) => (await request(path, options)).json();

export const sendJson = (method, path, body, options = {}) => request(path, {
	method, ...options, body: JSON.stringify(body), headers: { "Content-Type": "application/json", ...options.headers },
});

let asking = null;
// Opens the key field once, however many requests were refused.
export function askForKey(wrong) {
	asking ??= openKeyDialog(wrong).finally(() => { asking = null; });
	return asking;
}

async function openKeyDialog(wrong) {
	const input = el("input", { type: "password", autocomplete: "off", spellcheck: "false", required: true, value: key(), class: "long" });
	const error = el("p", { class: "error", role: "alert" }, wrong || "");
	const submit = async (value) => {
		if (value !== "use") return true;
		error.textContent = "";
		const problem = await tryKey(input.value.trim());
		error.textContent = problem;
		if (problem) { input.setAttribute("aria-invalid", "true"); input.select(); }
		return !problem;
	};
	const done = await ask({
		title: "This service needs a key",
		body: [field("Key", input, "It stays in this tab and is forgotten when you close the tab."), error],
		actions: [...(key() ? [{ label: "Forget the key", value: "forget" }] : []), { label: "Cancel", value: null }, { label: "Use this key", value: "use", kind: "primary" }],
		submit,
	});
	if (done === "forget") { setKey(""); location.reload(); }
	if (done === "use") dispatchEvent(new Event("asr-key"));
	return done === "use";
}

async function tryKey(value) {
	if (!value) return "Enter a key.";
	if (!/^[\x21-\x7e]+$/.test(value)) return "A key has only Latin letters, digits and signs, without spaces.";
	try {
		const response = await fetch(address("v1/jobs?limit=1"), { headers: { Authorization: `Bearer ${value}` } });
		if (response.status === 401) return "The service does not know this key. Check it for missing characters.";
		if (!response.ok && response.status === 403) return (await failureOf(response)).message;
	} catch {
		return "The service cannot be reached. Try again.";
	}
	setKey(value);
	return "";
}

export function explain(error, what) {
	if (error.name === "AbortError" || error.status === 401) return;
	const reason = error instanceof Failure ? error.message : "The service cannot be reached.";
	toast(`${what}: ${reason}`, { kind: "error" });
}

// Asks again while the server prepares the recording, or cannot be reached.
export async function whenPrepared(ask, signal) {
	for (let [wait, failures] = [1000, 0]; ; wait = Math.min(wait * 2, 15_000)) {
		try { return await ask(); } catch (error) {
			const isEarly = error.code === "recording_being_prepared";
			if (error.status && !isEarly) failures = error.status < 500 && error.status !== 429 ? 9 : failures + 1;
			if (failures > 5 || signal?.aborted) throw error;
			await pause(isEarly ? 1000 : wait, signal);
		}
	}
}

export const jobPath = (id, rest = "") => `v1/jobs/${encodeURIComponent(id)}${rest}`;

// Tokens for addresses that cannot carry a header: <audio> and <img>.
export class MediaToken {
	constructor(id) { Object.assign(this, { id, token: null, until: 0 }); }

	async get() {
		if (this.token && performance.now() < this.until - 300_000) return this.token;
		const response = await request(jobPath(this.id, "/media_token"), { method: "POST" });
		const { token, expires_at: at } = await response.json();
		const now = Date.parse(response.headers.get("date")) || Date.now(); // the clock of this computer may be wrong
		this.until = performance.now() + (typeof at === "number" ? at * 1000 : Date.parse(at)) - now;
		return (this.token = token);
	}

	async url(rest, query = {}) {
		const found = new URL(address(jobPath(this.id, rest)));
		for (const [name, value] of Object.entries({ ...query, token: await this.get() })) found.searchParams.set(name, value);
		return found.href;
	}
}
