// Elements, icons, dialogs, menus and messages. Text enters the page only as text nodes.

export function el(tag, props = {}, ...children) {
	const node = document.createElement(tag);
	for (const [name, value] of Object.entries(props)) set(node, name, value);
	node.append(...children.flat().filter((child) => child != null && child !== false));
	return node;
}

function set(node, name, value) {
	if (value == null || value === false) return;
	if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
	else if (name === "data") Object.assign(node.dataset, value);
	else if (name === "value" || name === "checked") node[name] = value;
	else node.setAttribute(name, value === true ? "" : value);
}

const PATHS = {
	play: "M8 5.5v13l10.5-6.5z!", pause: "M8 5h3v14H8zM13 5h3v14h-3z!",
	back: "M4 4v5h5M4.6 9A8 8 0 1 1 4 13.5", forward: "M20 4v5h-5M19.4 9A8 8 0 1 0 20 13.5",
	search: "M10.5 4a6.5 6.5 0 1 0 0 13a6.5 6.5 0 1 0 0-13M15.5 15.5L20 20",
	undo: "M9 5L4 10l5 5M4 10h9.5a6 6 0 0 1 0 12H11", redo: "M15 5l5 5-5 5M20 10h-9.5a6 6 0 0 0 0 12H13",
	more: "M5 11h2v2H5zM11 11h2v2h-2zM17 11h2v2h-2z!", download: "M12 4v11M7 11l5 5 5-5M5 20h14",
	link: "M10 14a4 4 0 0 0 6 .4l3-3a4 4 0 0 0-5.7-5.7L12 7M14 10a4 4 0 0 0-6-.4l-3 3a4 4 0 0 0 5.7 5.7L12 17",
	edit: "M4 20l1-4.5L16 4.5l3.5 3.5L8.5 19z", trash: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13M10 11v5M14 11v5",
	check: "M5 12.5l5 5L19.5 7", close: "M6 6l12 12M18 6L6 18", mic: "M12 3a3 3 0 0 0-3 3v5a3 3 0 0 0 6 0V6a3 3 0 0 0-3-3M5.5 11a6.5 6.5 0 0 0 13 0M12 17.5V21",
	key: "M7.5 8.5a3.5 3.5 0 1 0 0 7a3.5 3.5 0 1 0 0-7M11 12h10M17 12v3.5M20.5 12v3",
	theme: "M20 14.5A8.5 8.5 0 1 1 9.5 4a6.8 6.8 0 0 0 10.5 10.5z", help: "M9 9.2a3 3 0 1 1 4.3 2.7c-.9.5-1.3 1-1.3 2.1M12 17.5v.2M12 3a9 9 0 1 0 0 18a9 9 0 1 0 0-18",
	up: "M6 15l6-6 6 6", down: "M6 9l6 6 6-6", left: "M15 5l-7 7 7 7", stop: "M6 6h12v12H6z!",
	spectrum: "M4 20V10M8 20V5M12 20v-8M16 20V8M20 20v-6", clip: "M4 7v10M20 7v10M4 12h16M8 9l-4 3 4 3M16 9l4 3-4 3",
	file: "M7 3h7l4 4v14H7zM14 3v4h4", plus: "M12 5v14M5 12h14", minus: "M5 12h14", warn: "M12 4L2.8 20h18.4zM12 10v4.5M12 17.3v.2", target: "M12 3v4M12 17v4M3 12h4M17 12h4M12 9a3 3 0 1 0 0 6a3 3 0 1 0 0-6",
};

export function icon(name) {
	const path = PATHS[name];
	const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
	const shape = document.createElementNS(svg.namespaceURI, "path");
	svg.setAttribute("viewBox", "0 0 24 24");
	svg.setAttribute("aria-hidden", "true");
	svg.classList.add("icon");
	if (path.endsWith("!")) svg.classList.add("solid");
	shape.setAttribute("d", path.replace("!", ""));
	svg.append(shape);
	return svg;
}

export function button(label, onclick, props = {}) {
	const { icon: name, bare, ...rest } = props;
	const inside = [name && icon(name), bare ? null : el("span", {}, label)];
	const named = bare ? { "aria-label": label, title: rest.title ?? label } : {};
	return el("button", { type: "button", onclick, ...named, ...rest, class: `button ${bare ? "bare" : ""} ${rest.class ?? ""}` }, inside);
}

export const say = (text) => { document.getElementById("status").textContent = text; };

export function toast(text, { kind = "info", action, seconds = 6 } = {}) {
	const node = el("div", { class: `toast ${kind}` }, el("span", { dir: "auto" }, text));
	const remove = () => node.remove();
	if (action) node.append(button(action.label, () => { remove(); action.run(); }, { class: "quiet" }));
	node.append(button("Dismiss", remove, { icon: "close", bare: true }));
	document.getElementById("toasts").append(node);
	document.getElementById(kind === "error" ? "alert" : "status").textContent = text;
	if (kind !== "error") setTimeout(remove, seconds * 1000);
	return remove;
}

let count = 0;
export const freshId = (stem) => `${stem}-${++count}`;

export function field(label, input, hint) {
	input.id ||= freshId("field");
	const note = hint && el("small", { id: `${input.id}-hint` }, hint);
	if (note) input.setAttribute("aria-describedby", note.id);
	return el("div", { class: "field" }, el("label", { for: input.id }, label), input, note);
}

export const choice = (options, value, props = {}) => {
	const node = el("select", props, options.map(([key, text]) => el("option", { value: key }, text)));
	node.value = value;
	return node;
};

export function check(label, checked, onchange) {
	const input = el("input", { type: "checkbox", checked, onchange: () => onchange?.(input.checked) });
	const node = el("label", { class: "check" }, input, el("span", {}, label));
	node.input = input;
	return node;
}

// Opens a modal dialog. Resolves with the value of the chosen action, or null.
export function ask({ title, body = [], actions, wide = false, submit }) {
	const heading = el("h2", { id: freshId("title") }, title);
	const form = el("form", { novalidate: true }, heading, el("div", { class: "body" }, body));
	const dialog = el("dialog", { "aria-labelledby": heading.id, class: wide ? "wide" : "" }, form);
	return new Promise((resolve) => {
		let answer = null;
		const finish = async (value) => {
			if (value !== null && submit && (await submit(value)) === false) return;
			answer = value;
			dialog.close();
		};
		const row = actions.map(({ label, value, kind = "" }, i) =>
			el("button", { type: i === actions.length - 1 ? "submit" : "button", class: `button ${kind}`, onclick: i === actions.length - 1 ? null : () => finish(value) }, label));
		form.append(el("div", { class: "actions" }, row));
		form.addEventListener("submit", (event) => { event.preventDefault(); finish(actions.at(-1).value); });
		dialog.addEventListener("close", () => { dialog.remove(); resolve(answer); });
		document.body.append(dialog);
		dialog.showModal();
	});
}

export async function confirm(title, text, label, kind = "danger") {
	const actions = [{ label: "Cancel", value: null }, { label, value: true, kind }];
	return (await ask({ title, body: [el("p", { dir: "auto" }, text)], actions })) === true;
}

// A button that opens a menu. items() returns [{label, run, icon, disabled}] or null for a line.
export function menuButton(label, items, props = {}) {
	const opener = button(label, () => openMenu(opener, items()), { ...props, "aria-haspopup": "menu", "aria-expanded": "false" });
	return opener;
}

export function openMenu(opener, items) {
	document.querySelector(".menu")?.hidePopover();
	const menu = el("div", { class: "menu", role: "menu", popover: "auto", "aria-label": opener.getAttribute("aria-label") ?? opener.textContent });
	for (const item of items) menu.append(item ? entry(menu, item) : el("div", { class: "line", role: "separator" }));
	menu.addEventListener("keydown", (event) => moveInMenu(menu, event));
	menu.addEventListener("toggle", (event) => {
		opener.setAttribute("aria-expanded", String(event.newState === "open"));
		if (event.newState === "closed") menu.remove();
	});
	(opener.closest("dialog, main, header") ?? document.body).append(menu);
	menu.showPopover();
	place(menu, opener.getBoundingClientRect());
	menu.querySelector("button:not([disabled])")?.focus();
	menu.opener = opener;
}

function entry(menu, { label, run, icon: name, hint, disabled, checked }) {
	const role = checked === undefined ? "menuitem" : "menuitemcheckbox";
	const marks = { role, disabled, "aria-checked": checked === undefined ? null : String(checked) };
	const act = () => { menu.hidePopover(); menu.opener.focus(); run(); };
	const sign = name ? icon(name) : checked ? icon("check") : el("span", { class: "icon" });
	return el("button", { type: "button", tabindex: "-1", ...marks, onclick: act }, sign, el("span", {}, label), hint && el("kbd", {}, hint));
}

function moveInMenu(menu, event) {
	const all = [...menu.querySelectorAll("button:not([disabled])")];
	const at = all.indexOf(document.activeElement);
	const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: -1 }[event.key];
	event.stopPropagation();
	if (event.key === "Tab") menu.hidePopover();
	if (event.key === "Escape") { event.preventDefault(); menu.hidePopover(); menu.opener.focus(); }
	if (to === undefined) return;
	event.preventDefault();
	all.at(to % all.length)?.focus();
}

export function place(node, box) {
	const { offsetWidth: width, offsetHeight: height } = node;
	const below = box.bottom + 4 + height <= innerHeight - 8;
	node.style.left = `${Math.max(8, Math.min(box.right - width, innerWidth - width - 8))}px`;
	node.style.top = `${below ? box.bottom + 4 : Math.max(8, box.top - height - 4)}px`;
}

export function saveAs(blob, name) {
	const link = el("a", { href: URL.createObjectURL(blob), download: name });
	link.click();
	setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

export async function copy(text, what) {
	try {
		await navigator.clipboard.writeText(text);
	} catch {  // pages without TLS have no clipboard API
		const area = el("textarea", { value: text, class: "hidden" });
		(document.querySelector("dialog[open]") ?? document.body).append(area);
		area.select();
		document.execCommand("copy");
		area.remove();
	}
	toast(`${what} copied`);
}
