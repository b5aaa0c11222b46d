/* What is said when something doesn't work: what happened, and what to do. */

const TROUBLE = {
  insecure: [
    "No microphone here.",
    "Browsers give it only to pages over https or from localhost: open this page that way, or choose a file.",
  ],
  denied: [
    "The microphone was not allowed.",
    "Allow it for this page (the sign beside the address), then start again. A file needs no permission.",
  ],
  no_microphone: ["No microphone was found.", "Plug one in, or choose a file."],
  in_use: ["The microphone can't be opened.", "Another program may hold it: close that, then start again."],
  no_audio: ["The microphone can't be used.", "Reload the page, or try another browser."],
  not_audio: ["This file can't be read.", "The browser doesn't know its format: try WAV, MP3, M4A, Ogg or WebM."],
  too_large: ["This file is too large for the page.", "Up to 512 MB are read; the REST interface and `stt` take more."],
  connection_lost: ["The connection was lost.", "What was said until then is kept. Is the service running?"],
  unauthenticated: ["The service asks for a key.", "Enter a valid one in the settings, then start again."],
  rate_limited: ["Too many requests with this key.", "Wait a moment, then start again."],
  overloaded: ["The service is busy.", "All its streams are taken: try again shortly."],
  not_ready: ["The service is starting or stopping.", "What was said until then is kept; try again shortly."],
  out_of_memory: ["The service is out of memory.", "Try again shortly, and tell who runs it if it stays so."],
  upstream_unavailable: ["The service can't be reached.", "The gateway is up and its service is not: tell who runs it."],
  fallback_failed: ["The larger model could not answer.", "What was said until then is kept; try again."],
  deadline_exceeded: ["The service ended the stream.", "No audio came for a while. Start again when you speak."],
  internal: ["Something went wrong in the service.", "What was said until then is kept; try again."],
};

/* For these, trying again without changing anything makes sense. */
const PASSING = new Set([
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

/** Title, advice, and whether to offer another try. @param {{type: string, message?: string, retry_after?: number}} error */
export function trouble(error) {
  const [title, advice] = TROUBLE[error.type] || ["The service could not do that.", error.message || error.type];
  const wait = error.retry_after > 1 ? ` It asks to wait ${error.retry_after} s.` : "";
  return { title, advice: advice + wait, again: PASSING.has(error.type) };
}

export const REASONS = {
  low_logprob: "unsure of the words",
  low_language_probability: "unsure of the language",
  few_words: "few words",
  repetition: "repeated itself",
  primary_error: "the first model failed",
  requested: "as asked",
};

/* The languages that Whisper knows. */
export const LANGUAGES =
  "af am ar as az ba be bg bn bo br bs ca cs cy da de el en es et eu fa fi fo fr gl gu ha haw he hi hr ht hu hy id is it ja jw ka kk km kn ko la lb ln lo lt lv mg mi mk ml mn mr ms mt my ne nl nn no oc pa pl ps pt ro ru sa sd si sk sl sn so sq sr su sv sw ta te tg th tk tl tr tt uk ur uz vi yi yo yue zh".split(" ");

const NAMES = new Intl.DisplayNames(["en"], { type: "language" });

/** A language's name in English. */
export function languageName(code) {
  const tag = { jw: "jv", no: "nb" }[code] || code;
  try {
    return code ? NAMES.of(tag) : "";
  } catch {
    return code;
  }
}
