/* Captions on the page: the list of finals, and the interim text below it. */

import { clock } from "./clock.js";
import { REASONS, languageName } from "./words.js";

const BARS = 5;

function element(tag, className, ...children) {
  const made = document.createElement(tag);
  made.className = className;
  made.append(...children);
  return made;
}

/** Confidence of the model that produced the text, 0 to 1; null if unknown. */
function confidence(routing, primary) {
  const own = routing.final_model === primary || !routing.fallback_used;
  return (own ? routing.primary_confidence : routing.fallback_confidence) ?? null;
}

function meter(value) {
  const percent = Math.round(value * 100);
  const bars = element("span", "bars");
  bars.setAttribute("aria-hidden", "true");
  for (let i = 0; i < BARS; i += 1) bars.append(element("i", i < Math.round(value * BARS) ? "on" : ""));
  const made = element("span", "confidence", bars, element("span", "", `${percent} %`));
  made.title = `Confidence: ${percent} %`;
  made.prepend(element("span", "unseen", "Confidence "));
  return made;
}

/* The model that produced the text, and why the larger model was used, or failed. */
function models({ final_model: model, fallback_used: escalated, fallback_error: failed, reasons }, primary) {
  const why = reasons.map((reason) => REASONS[reason] || reason).join(", ");
  const made = [element("span", escalated && model !== primary ? "model second" : "model", model || "no model")];
  if (failed) made.push(element("span", "why", `larger model failed: ${failed.replaceAll("_", " ")}`));
  else if (escalated) made.push(element("span", "why", why ? `larger model used: ${why}` : "larger model used"));
  return made;
}

/** The list of finals and the interim line. */
export class Captions {
  constructor(root) {
    this.list = root.querySelector("#finals");
    this.line = root.querySelector("#interim");
    this.stable = root.querySelector("#stable");
    this.unstable = root.querySelector("#unstable");
    this.primary = "";
    this.listening = false;
    this.clear();
  }

  clear() {
    this.finals = []; // {text, segments}; times from the start of the first stream
    this.offset = 0; // seconds of the previous streams
    this.list.replaceChildren();
    this.interim(null);
  }

  /** Segments of all finals, for subtitles. */
  get segments() {
    return this.finals.flatMap(({ segments }) => segments);
  }

  /** Shows that the page is listening. */
  streamBegan() {
    this.listening = true;
    this.interim(null);
  }

  /** Ends a stream of `seconds`; times of the next stream follow it. */
  streamEnded(seconds) {
    this.offset += seconds;
    this.listening = false;
    this.interim(null);
  }

  /** @param {{stable_text: string, unstable_text: string} | null} event null: no speech at the moment. */
  interim(event) {
    // In languages with spaces the unstable text begins with one; only words are underlined.
    const [, space, unstable] = /^(\s*)([^]*?)\s*$/.exec(event?.unstable_text || "");
    this.stable.textContent = ((event?.stable_text || "") + space).trimStart();
    this.unstable.textContent = unstable;
    const text = this.stable.textContent || this.unstable.textContent;
    if (!text && this.listening) this.unstable.textContent = "…";
    this.line.classList.toggle("waiting", !text);
    this.line.hidden = !text && !this.listening;
    this.#follow();
  }

  final({ result }) {
    this.interim(null);
    if (!result.text.trim()) return;
    const segments = result.segments.map((it) => ({ ...it, start: it.start + this.offset, end: it.end + this.offset }));
    this.finals.push({ text: result.text, segments });
    const at = segments[0]?.start ?? this.offset;
    const time = element("time", "at", clock(at));
    time.dateTime = `PT${at.toFixed(1)}S`;
    const text = element("p", "text", result.text.trim());
    text.lang = result.language;
    text.dir = "auto";
    this.list.append(element("li", "", time, element("div", "said", text, this.#details(result))));
    this.#follow();
  }

  #details(result) {
    const about = element("p", "about", element("span", "language", languageName(result.language)));
    const value = confidence(result.routing, this.primary);
    if (value !== null) about.append(meter(value));
    about.append(...models(result.routing, this.primary));
    return about;
  }

  /* Scrolls to the newest text, unless the reader has scrolled away. */
  #follow() {
    const page = document.scrollingElement;
    const below = page.scrollHeight - page.clientHeight - page.scrollTop;
    if (below < 240) page.scrollTop = page.scrollHeight;
  }
}
