/* How far the words are behind the voice, measured where a person would: here. */

import { RATE } from "./resample.js";

const RECENT = 5;

function median(values) {
  return values.length ? [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] : null;
}

/** For one stream that is sent as it is spoken, or faster. */
export class Latency {
  constructor(realtime) {
    this.realtime = realtime;
    this.started = performance.now() / 1000;
    this.spoken = Infinity; // when the stream's first sample was spoken, seconds on the page's clock
    this.sent = 0; // seconds
    this.heard = 0; // seconds that the service has heard
    this.ended = null; // where the speech of the utterance ended
    this.lags = [];
    this.waits = [];
  }

  /** So many samples are sent now, the last of which was spoken just now. */
  sending(samples) {
    this.sent += samples / RATE;
    // The least delay that was seen is the closest to none.
    this.spoken = Math.min(this.spoken, performance.now() / 1000 - this.sent);
  }

  event(event) {
    const now = performance.now() / 1000 - this.spoken;
    this.heard = Math.max(this.heard, event.audio_processed);
    if (event.speech_event?.type === "ENDED") this.ended = event.speech_event.offset;
    if (event.interim) this.#keep(this.lags, now - event.audio_processed);
    if (event.final && this.ended !== null) {
      this.#keep(this.waits, now - this.ended);
      this.ended = null;
    }
  }

  #keep(values, value) {
    values.push(Math.max(0, value));
    if (values.length > RECENT) values.shift();
  }

  /** Labels and values of two figures; "–" where nothing is known yet. */
  figures() {
    if (!this.realtime) {
      const rate = this.heard / (performance.now() / 1000 - this.started);
      return [
        ["Heard", clockOf(this.heard)],
        ["Speed", this.heard ? `${rate.toFixed(1)}×` : "–"],
      ];
    }
    return [
      ["Words behind", inSeconds(median(this.lags))],
      ["Final after", inSeconds(median(this.waits))],
    ];
  }
}

function inSeconds(value) {
  return value === null ? "–" : `${value.toFixed(1)} s`;
}

function clockOf(seconds) {
  return `${Math.floor(seconds / 60)}:${String(Math.floor(seconds) % 60).padStart(2, "0")}`;
}
