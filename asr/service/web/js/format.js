// Times and sizes as people read them.

export function clock(seconds, digits = 0) {
	const scale = 10 ** digits;
	const total = Math.floor(Math.max(0, seconds) * scale + 1e-6);
	const whole = Math.floor(total / scale);
	const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
	const rest = digits ? `.${String(total % scale).padStart(digits, "0")}` : "";
	const two = (value) => String(value).padStart(2, "0");
	return (h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`) + rest;
}

// "1:02:03.5", "62:03", "95" or "1h 2m 3s" -> seconds, or null.
export function parseClock(text) {
	const clean = text.trim().replace(",", ".");
	const named = /^(?:(\d+)\s*h)?\s*(?:(\d+)\s*m(?:in)?)?\s*(?:(\d+(?:\.\d+)?)\s*s?)?$/i.exec(clean);
	if (clean && named && /[hms]/i.test(clean)) return (+named[1] || 0) * 3600 + (+named[2] || 0) * 60 + (+named[3] || 0);
	if (!/^(\d+:){0,2}\d+(\.\d+)?$/.test(clean)) return null;
	return clean.split(":").reduce((sum, part) => sum * 60 + Number(part), 0);
}

export function spoken(seconds) {
	const units = [["hour", Math.floor(seconds / 3600)], ["minute", Math.floor(seconds / 60) % 60], ["second", Math.floor(seconds % 60)]];
	const parts = units.filter(([, n]) => n).map(([name, n]) => `${n} ${name}${n === 1 ? "" : "s"}`);
	return parts.join(" ") || "0 seconds";
}

export function bytes(n) {
	const units = ["B", "kB", "MB", "GB", "TB"];
	let at = 0;
	while (n >= 1000 && at < 4) { n /= 1000; at += 1; }
	return `${at && n < 10 ? n.toFixed(1) : Math.round(n)} ${units[at]}`;
}

const dates = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const ago = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });

export function moment(seconds) {
	const past = seconds - Date.now() / 1000;
	if (past > -60) return ago.format(0, "minute");
	if (past > -3600) return ago.format(Math.ceil(past / 60), "minute");
	if (past > -43_200) return ago.format(Math.ceil(past / 3600), "hour");
	return dates.format(seconds * 1000);
}

const names = new Intl.DisplayNames(undefined, { type: "language" });
export function languageName(code) {
	try { return names.of(code) ?? code; } catch { return code; }
}
