// Where a search matches inside a text, in the server's own sense: q.casefold() is part of body.casefold().
//
// JavaScript has no casefold; toLowerCase leaves ß, folds a final Σ otherwise and follows the browser's version of
// Unicode. So the server sends what its own casefold makes of each character, and a text is folded by that. Folding may
// lengthen (ß to ss, ﬁ to fi, İ to i and a dot): a match that begins or ends inside such a piece marks the whole
// character.

import { api } from "./api.js";

/** @import { Range } from "./types.js" */

/** @type {Map<string, string>} */
let table = new Map();

/** Get the table. Until then, and without it, texts are taken as they are. */
export async function loadFolding() {
  table = new Map(Object.entries(await api.folding()));
}

/**
 * @param {string} text
 * @returns {string} as Python's str.casefold
 */
export function fold(text) {
  let folded = "";
  for (const character of text) folded += table.get(character) ?? character;
  return folded;
}

/**
 * @param {string} text
 * @param {string} query
 * @param {number} [max] how many are looked for
 * @returns {Range[]} the parts of the text that match, in order, none touching the next
 */
export function matches(text, query, max = 100) {
  const needle = fold(query);
  if (!needle) return [];
  let folded = "";
  /** For each unit of the folded text, where its character begins in the text. @type {number[]} */
  const origins = [];
  let at = 0;
  for (const character of text) {
    const piece = table.get(character) ?? character;
    for (let unit = 0; unit < piece.length; unit += 1) origins.push(at);
    folded += piece;
    at += character.length;
  }
  origins.push(text.length);
  /** @type {Range[]} */
  const found = [];
  for (let from = folded.indexOf(needle); from >= 0 && found.length < max;) {
    const start = origins[from];
    let last = from + needle.length;
    // A match that ends inside a piece takes the rest of it.
    while (last < folded.length && origins[last] === origins[last - 1]) last += 1;
    const previous = found[found.length - 1];
    if (previous && start <= previous[1]) previous[1] = Math.max(previous[1], origins[last]);
    else found.push([start, origins[last]]);
    from = folded.indexOf(needle, from + needle.length);
  }
  return found;
}
