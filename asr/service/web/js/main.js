// The frame of the page: the head, the theme, and which view the address names.

import { el, button, icon, toast } from "./dom.js";
import { address, askForKey, key } from "./api.js";
import { HomePage } from "./home.js";
import { JobPage } from "./job.js";
import { LivePage } from "./live.js";
import { help } from "./keys.js";
import { setting, setSetting } from "./store.js";

const main = document.getElementById("main");
const live = new LivePage(main);
let view = null;
let shownJob = null;

const dark = matchMedia("(prefers-color-scheme: dark)");

function theme(value) {
	if (value === "auto") delete document.documentElement.dataset.theme;
	else document.documentElement.dataset.theme = value;
	dispatchEvent(new Event("asr-theme"));
}

function nextTheme() {
	const system = dark.matches ? "dark" : "light";
	const wanted = (document.documentElement.dataset.theme ?? system) === "dark" ? "light" : "dark";
	setSetting("theme", wanted === system ? "auto" : wanted);
	theme(setting("theme", "auto"));
}

function head() {
	const logo = el("a", { href: "#", class: "brand", "aria-label": "Transcripts" }, el("img", { src: address("page/icon.svg"), alt: "", width: 26, height: 26 }), el("span", {}, "Transcripts"));
	const links = el("nav", { "aria-label": "Views" }, el("a", { href: "#", data: { view: "home" } }, "Recordings"), el("a", { href: "#live", data: { view: "live" } }, "Live"));
	const keyButton = button("Key", () => askForKey(), { icon: "key", bare: true, title: "Key" });
	document.getElementById("top").append(logo, links, el("span", { class: "space" }), keyButton, button("Dark or light", nextTheme, { icon: "theme", bare: true }), button("Keyboard shortcuts", help, { icon: "help", bare: true, title: "Keyboard shortcuts (?)" }));
	const show = (keys) => { keyButton.hidden = !keys && !key(); };
	show(false);
	addEventListener("asr-key", () => show(true));
	fetch(address("page/config.json")).then((response) => (response.ok ? response.json() : {})).then((config) => show(config.needs_key), () => {});
}

function parts() {
	const found = new URLSearchParams(location.hash.slice(1));
	const time = Number(found.get("t"));
	return { job: found.get("job"), time: found.has("t") && time >= 0 && time < Infinity ? time : null, isLive: location.hash.startsWith("#live") };
}

async function route() {
	const { job, time, isLive } = parts();
	if (job && job === shownJob) { if (time !== null) view.goTo(time); return; }
	const old = view;
	shownJob = job;
	view = job ? new JobPage(main, job, time) : isLive ? live : new HomePage(main);
	const now = view;
	document.body.dataset.view = job ? "job" : isLive ? "live" : "home";
	for (const link of document.querySelectorAll("nav a")) {
		if (link.dataset.view === document.body.dataset.view) link.setAttribute("aria-current", "page");
		else link.removeAttribute("aria-current");
	}
	main.replaceChildren(el("p", { class: "loading" }, "Loading…"));
	await old?.close();
	if (view !== now) return;
	try {
		await view.open();
		if (old) main.focus({ preventScroll: true });
	} catch (error) { if (view === now) failed(error); }
}

function failed(error) {
	if (error.name === "AbortError") return;
	const text = error.status === 404 ? "This recording does not exist, or it belongs to another key." : error.status === 401 ? "The service needs a key." : error.message;
	const again = error.status === 401 ? button("Enter the key", async () => { if (await askForKey()) { shownJob = null; route(); } }, { class: "primary" }) : button("Try again", () => { shownJob = null; route(); });
	main.replaceChildren(el("div", { class: "failed" }, icon("warn"), el("h1", { dir: "auto" }, text), el("div", { class: "buttons" }, again, el("a", { href: "#", class: "button" }, "All recordings"))));
}

theme(setting("theme", "auto"));
head();
addEventListener("hashchange", route);
for (const name of ["dragover", "drop"]) addEventListener(name, (event) => { if (!event.target.closest?.("input, textarea")) event.preventDefault(); }); // a browser would open the file
addEventListener("keydown", (event) => { if (event.key === "?" && !shownJob && !event.target.matches("input, textarea") && setting("keys", true) && !document.querySelector("dialog")) help(); });
addEventListener("unhandledrejection", ({ reason }) => { if (reason?.name !== "AbortError" && reason?.status !== 401) toast(`Something went wrong: ${reason?.message ?? reason}`, { kind: "error" }); });
route();
