/* Parts of a text between which a subtitle may break, and their widths in columns: stt_client/text_units.py. */

const UNSPACED =
  /[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u2e80-\u30ff\u3105-\u312f\u31f0-\u31ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef\u{20000}-\u{3ffff}]/u;
const WIDE =
  /[\u1100-\u115f\u2e80-\u303e\u3041-\u4dbf\u4e00-\ua4cf\ua960-\ua97c\uac00-\ud7a3\uf900-\ufaff\ufe10-\ufe19\ufe30-\ufe6f\uff01-\uff60\uffe0-\uffe6\u{17000}-\u{1b2fb}\u{20000}-\u{3fffd}]|\p{Emoji_Presentation}/u;
const NARROW = /[\u{1f1e6}-\u{1f1ff}]/u; // flags' letters

const NO_START = new Set("ะาำๅๆຯະາຳーぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮ々〜～");
const NO_END = new Set("เแโใไເແໂໃໄ");
const CLOSING = /[\p{Pe}\p{Pf}\p{Po}\p{M}]/u;
const OPENING = /[\p{Ps}\p{Pi}]/u;

const SENTENCE_END = /[.!?…。！？؟।॥።。！？]['"’”»)\]」』）】]*$/u;
const CLAUSE_END = /[,;:،؛、，；：—–\-]['"’”»)\]」』）】]*$/u;
const ABBREVIATION = /^['"‘“«(\[]*(?:[A-Z]|Mr|Mrs|Ms|Dr|Prof|St|vs|etc|Sra?|Mme|Hr|Fr)\.$/u;

function mayBreak(before, after) {
  if (!UNSPACED.test(before) && !UNSPACED.test(after)) return false;
  if (NO_END.has(before) || OPENING.test(before)) return false;
  return !NO_START.has(after) && !CLOSING.test(after);
}

/** Columns of a text: 2 per East Asian wide character, 1 per other character. */
export function width(text) {
  return [...text].reduce((sum, char) => sum + (WIDE.test(char) && !NARROW.test(char) ? 2 : 1), 0);
}

/** Splits a word without spaces into parts that may be on different lines, each at most `widest` columns. */
export function units(word, widest) {
  const found = [];
  let unit = "";
  let last = "";
  for (const char of word) {
    if (unit && (mayBreak(last, char) || width(unit + char) > widest)) {
      found.push(unit);
      unit = "";
    }
    unit += char;
    last = char;
  }
  if (unit) found.push(unit);
  return found;
}

/** Whether text that ends with `before` continues with `after` without a space. */
export function withoutSpace(before, after) {
  return UNSPACED.test([...before].at(-1)) && UNSPACED.test([...after][0]);
}

export function endsSentence(text) {
  return SENTENCE_END.test(text) && !ABBREVIATION.test(text);
}

export function endsClause(text) {
  return CLAUSE_END.test(text);
}
