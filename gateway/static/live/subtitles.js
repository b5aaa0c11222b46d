/* Captions as files: plain text, SubRip, WebVTT, identical to the service's own formats. */

import { cues } from "./cues.js";

function clock(milliseconds, point) {
  const two = (value) => String(value).padStart(2, "0");
  const seconds = Math.floor(milliseconds / 1000);
  const rest = String(milliseconds % 1000).padStart(3, "0");
  return `${two(Math.floor(seconds / 3600))}:${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}${point}${rest}`;
}

export function srt(segments) {
  return cues(segments)
    .map(({ start, end, lines }, i) => {
      // SubRip has no escapes, so an arrow is shortened to one that no parser takes for a time line.
      const text = lines.join("\n").replaceAll(/-{2,}>/g, "->");
      return `${i + 1}\n${clock(start, ",")} --> ${clock(end, ",")}\n${text}\n`;
    })
    .join("\n");
}

export function vtt(segments) {
  const escape = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  const found = cues(segments).map(({ start, end, lines }) => {
    return `\n${clock(start, ".")} --> ${clock(end, ".")}\n${escape(lines.join("\n"))}\n`;
  });
  return `WEBVTT\n${found.join("")}`;
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
