/* Texts of the page: errors, reasons, languages. An error has a title (what happened) and advice (what to do). */

const ERRORS = {
  insecure: [
    "The microphone is unavailable on this page.",
    "Browsers allow it only over https or from localhost: open the page that way, or choose a file.",
  ],
  denied: [
    "The microphone was not allowed.",
    "Allow it for this page (icon beside the address), then start again. Files need no permission.",
  ],
  no_microphone: ["No microphone was found.", "Plug one in, or choose a file."],
  in_use: ["The microphone can't be opened.", "Another program may be using it: close that program, then start again."],
  no_audio: ["The microphone can't be used.", "Reload the page, or try another browser."],
  not_audio: ["This file can't be read.", "The browser does not support its format: try WAV, MP3, M4A, Ogg or WebM."],
  too_large: ["This file is too large for the page.", "The limit is 512 MB. For larger files use the REST API or `stt`."],
  connection_lost: ["The connection was lost.", "Captions so far are kept. Check that the service is running."],
  unauthenticated: ["The service requires a key.", "Enter a valid key in the settings, then start again."],
  rate_limited: ["Too many requests with this key.", "Wait a moment, then start again."],
  overloaded: ["The service is busy.", "Its live-stream limit is reached: try again shortly."],
  not_ready: ["The service is starting or stopping.", "Captions so far are kept; try again shortly."],
  out_of_memory: ["The service is out of memory.", "Try again shortly. If it persists, contact the operator."],
  upstream_unavailable: ["The service is unreachable.", "The gateway is running but its service is not: contact the operator."],
  fallback_failed: ["The larger model failed.", "Captions so far are kept; try again."],
  deadline_exceeded: ["The service ended the stream.", "It received no audio for a while. Start again when you speak."],
  internal: ["Internal error in the service.", "Captions so far are kept; try again."],
};

/* Errors after which a retry without changes makes sense. */
const RETRYABLE = new Set([
  "connection_lost",
  "rate_limited",
  "overloaded",
  "not_ready",
  "out_of_memory",
  "upstream_unavailable",
  "fallback_failed",
  "deadline_exceeded",
  "internal",
]);

/** Title, advice, and whether to offer a retry. @param {{type: string, message?: string, retry_after?: number}} error */
export function describeError(error) {
  const [title, advice] = ERRORS[error.type] || ["The service rejected the request.", error.message || error.type];
  const wait = error.retry_after > 1 ? ` Please wait ${error.retry_after} s.` : "";
  return { title, advice: advice + wait, retryable: RETRYABLE.has(error.type) };
}

export const REASONS = {
  low_logprob: "low confidence",
  low_language_probability: "language uncertain",
  few_words: "few words",
  repetition: "repetition",
  primary_error: "small model failed",
  requested: "requested",
};

/* Languages that every multilingual Whisper supports, for a service that doesn't name its own. */
export const LANGUAGES =
  "af am ar as az ba be bg bn bo br bs ca cs cy da de el en es et eu fa fi fo fr gl gu ha haw he hi hr ht hu hy id is it ja jw ka kk km kn ko la lb ln lo lt lv mg mi mk ml mn mr ms mt my ne nl nn no oc pa pl ps pt ro ru sa sd si sk sl sn so sq sr su sv sw ta te tg th tk tl tr tt uk ur uz vi yi yo zh".split(" ");

const NAMES = new Intl.DisplayNames(["en"], { type: "language" });

/** English name of a language code. */
export function languageName(code) {
  const tag = { jw: "jv", no: "nb" }[code] || code;
  try {
    return code ? NAMES.of(tag) : "";
  } catch {
    return code;
  }
}
