// Keyboard shortcuts. Keys without Ctrl can be turned off, for people who dictate or have a tremor.

import { el, ask, check } from "./dom.js";
import { setting, setSetting } from "./store.js";

const GROUPS = [
	["Listen", ["Space|K", "Play or pause", "←|→", "Back or forward 5 seconds", "J|L", "Back or forward 10 seconds", ",|.", "Previous or next word", "[|]", "Slower or faster", "G", "Go to a time"]],
	["Read", ["↑|↓", "Previous or next line", "Enter", "Play from the line", "Ctrl F|/", "Find and replace", "F", "Follow the current word", "?", "This help"]],
	["Review", ["N|P", "Next or previous doubtful place", "R", "Listen again", "A", "Accept", "E", "Correct"]],
	["Edit", ["E|Double click", "Edit the line", "Enter", "Save the line", "Ctrl Enter", "Split at the cursor", "Backspace at the start", "Join with the line before", "Ctrl ↑|Ctrl ↓", "Edit the line above or below", "Ctrl Space", "Play or pause while editing", "Esc", "Cancel", "Ctrl Z|Ctrl Shift Z", "Undo, redo", "Ctrl S", "Save now"]],
];

export function help() {
	const row = (keys, text) => el("div", {}, el("dt", {}, keys.split("|").flatMap((it, i) => [i ? " " : "", el("kbd", {}, it)])), el("dd", {}, text));
	const table = ([title, rows]) => el("section", {}, el("h3", {}, title), el("dl", { class: "keys" }, rows.map((keys, i) => (i % 2 ? null : row(keys, rows[i + 1])))));
	const single = check("Shortcuts without Ctrl", setting("keys", true), (on) => setSetting("keys", on));
	return ask({ title: "Keyboard", wide: true, body: [el("div", { class: "key-groups" }, GROUPS.map(table)), single], actions: [{ label: "Close", value: null, kind: "primary" }] });
}

const isField = (node) => node.matches?.("input:not([type=range]):not([type=checkbox]), textarea, select, [contenteditable]");

// Calls an action for a key. `actions` maps names of keys ("ctrl+f", "j") to functions.
export function listen(actions, signal) {
	addEventListener("keydown", (event) => {
		if (event.defaultPrevented || event.isComposing || document.querySelector("dialog[open]")) return;
		const ctrl = event.ctrlKey || event.metaKey;
		const { key, target } = event;
		if (event.altKey || (!ctrl && isField(target))) return;
		if (!ctrl && !setting("keys", true) && key !== "Escape") return;
		if ((key === " " || key === "Enter") && !ctrl && target.matches?.("button, a, summary, input")) return;
		if (key.startsWith("Arrow") && target.matches?.("input, [role=menuitem]")) return;
		const name = (ctrl ? "ctrl+" : "") + (event.shiftKey && key.length > 1 ? "shift+" : "") + (ctrl && event.shiftKey && key.length === 1 ? "shift+" : "") + (key.length === 1 ? key.toLowerCase() : key);
		const action = actions[name];
		if (!action || (event.repeat && !key.startsWith("Arrow") && !"jl,.".includes(key))) return;
		event.preventDefault();
		action();
	}, { signal });
}
