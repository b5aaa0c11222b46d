/* What has been said, on the screen: finals as a list that only grows, and the words that are still coming. */

import { clock } from "./clock.js";
import { REASONS, languageName } from "./words.js";

const BARS = 5;

function element(tag, className, ...children) {
  const made = document.createElement(tag);
  made.className = className;
  made.append(...children);
  return made;
}

/** The confidence of the model whose text it is, 0 to 1; null where it isn't known. */
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

/* Which model spoke, and what the larger one had to do with it. */
function models({ final_model: model, fallback_used: asked, fallback_error: failed, reasons }, primary) {
  const why = reasons.map((reason) => REASONS[reason] || reason).join(", ");
  const made = [element("span", asked && model !== primary ? "model second" : "model", model || "no model")];
  if (failed) made.push(element("span", "why", `second opinion wanted, ${failed.replaceAll("_", " ")}`));
  else if (asked) made.push(element("span", "why", why ? `second opinion: ${why}` : "second opinion"));
  return made;
}

/** The list, and the line below it. */
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
    this.finals = []; // {text, segments}: times from the first start
    this.offset = 0; // seconds of the streams before this one
    this.list.replaceChildren();
    this.interim(null);
  }

  /** Segments of all finals, for subtitles. */
  get segments() {
    return this.finals.flatMap(({ segments }) => segments);
  }

  /** Something may be said from now on: there is a sign of it. */
  streamBegan() {
    this.listening = true;
    this.interim(null);
  }

  /** A stream of so many seconds is over: the next one's times come after it. */
  streamEnded(seconds) {
    this.offset += seconds;
    this.listening = false;
    this.interim(null);
  }

  /** @param {{stable_text: string, unstable_text: string} | null} event null: nobody is speaking. */
  interim(event) {
    // The unstable text brings the space before it, where its language has one; only words are underlined.
    const [, space, unstable] = /^(\s*)([^]*?)\s*$/.exec(event?.unstable_text || "");
    this.stable.textContent = ((event?.stable_text || "") + space).trimStart();
    this.unstable.textContent = unstable;
    const words = this.stable.textContent || this.unstable.textContent;
    if (!words && this.listening) this.unstable.textContent = "…";
    this.line.classList.toggle("waiting", !words);
    this.line.hidden = !words && !this.listening;
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
    this.list.append(element("li", "", time, element("div", "said", text, this.#about(result))));
    this.#follow();
  }

  #about(result) {
    const about = element("p", "about", element("span", "language", languageName(result.language)));
    const sure = confidence(result.routing, this.primary);
    if (sure !== null) about.append(meter(sure));
    about.append(...models(result.routing, this.primary));
    return about;
  }

  /* The newest words stay in sight, unless the reader has scrolled away from them. */
  #follow() {
    const page = document.scrollingElement;
    const below = page.scrollHeight - page.clientHeight - page.scrollTop;
    if (below < 240) page.scrollTop = page.scrollHeight;
  }
}
