/* Segments as files: plain text, SubRip, WebVTT. As the service's own formats, cue for cue. */

function cues(segments) {
  return segments
    .map(({ start, end, text }) => {
      const from = Math.round(Math.max(0, start) * 1000);
      // A cue has to end after it starts.
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
      // SubRip has no escapes: an arrow in the text is made one that can't be taken for a time line.
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

/** One utterance a line. */
export function txt(finals) {
  return finals.map(({ text }) => `${text.trim()}\n`).join("");
}

/** Has the browser save a text. */
export function save(name, type, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: `${type};charset=utf-8` }));
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}
