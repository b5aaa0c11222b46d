/* Captions as files: plain text, SubRip, WebVTT, identical to the service's own formats. */

function cues(segments) {
  return segments
    .map(({ start, end, text }) => {
      const from = Math.round(Math.max(0, start) * 1000);
      // A cue must end after it starts.
      return { from, to: Math.max(Math.round(end * 1000), from + 1), text: text.split(/\s+/).filter(Boolean).join(" ") };
    })
    .filter(({ text }) => text);
}

function clock(milliseconds, point) {
  const two = (value) => String(value).padStart(2, "0");
  const seconds = Math.floor(milliseconds / 1000);
  const rest = String(milliseconds % 1000).padStart(3, "0");
  return `${two(Math.floor(seconds / 3600))}:${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}${point}${rest}`;
}

export function srt(segments) {
  return cues(segments)
    .map(({ from, to, text }, i) => {
      // SubRip has no escapes, so an arrow is shortened to one that no parser takes for a time line.
      return `${i + 1}\n${clock(from, ",")} --> ${clock(to, ",")}\n${text.replaceAll("-->", "->")}\n`;
    })
    .join("\n");
}

export function vtt(segments) {
  const escape = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  const lines = cues(segments).map(({ from, to, text }) => {
    return `\n${clock(from, ".")} --> ${clock(to, ".")}\n${escape(text)}\n`;
  });
  return `WEBVTT\n${lines.join("")}`;
}

/** One line per utterance. */
export function txt(finals) {
  return finals.map(({ text }) => `${text.trim()}\n`).join("");
}

/** Downloads a text as a file. */
export function save(name, type, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: `${type};charset=utf-8` }));
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}
